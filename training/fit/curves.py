"""Curves of a training for TensorBoard: `tensorboard --logdir RUN` finds those of every model."""

from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX import SummaryWriter


class TensorBoardLog:
    """Write scalars over the epochs; a context manager that closes its file."""

    def __init__(self, folder: Path, *, first_epoch: int) -> None:
        """Write into `folder`; what an interrupted training wrote from `first_epoch` on is
        hidden.
        """
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def write(self, epoch: int, **figures: float | None) -> None:
        """Write the figures of an epoch that there are, and let them be seen at once."""
        for name, figure in figures.items():
            if figure is not None:
                self._writer.add_scalar(name, figure, epoch)
        self._writer.flush()
