"""The time by which an answer must be there."""

import asyncio
import time
from types import TracebackType

from app.errors import DeadlineExceeded


class by_deadline:  # noqa: N801 -- it reads as the function that it stands for
    """Stop the block at a time on `time.monotonic`'s clock; raises `DeadlineExceeded`."""

    __slots__ = ("_deadline", "_timeout")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    async def __aenter__(self) -> None:
        """Begin, unless it is too late."""
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise DeadlineExceeded("The deadline passed before the work began.")
        self._timeout = asyncio.timeout(remaining_s)
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End; raise `DeadlineExceeded` if the time was over before."""
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as exc:
            raise DeadlineExceeded("The answer was not ready by the deadline.") from exc
