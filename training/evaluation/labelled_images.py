"""Read labelled images as serving does: decode in threads, with each file's role for the bundle.

Shape suffixes: H and W input rows and columns, M columns of metadata.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle
from cxr.decode import DecodeLimits
from cxr.decode_and_preprocess import Preparation, Prepared, prepare
from cxr.errors import ImageError
from cxr.evaluation_schema import UnansweredFile
from cxr.metadata_features import encode_metadata_features
from cxr.preprocess import PreprocessSpec
from training.data import IndexRow
from training.data.index import read_table
from training.evaluation.prediction import Role
from training.hardware import available_cores

_DECODED_AHEAD = 32
"""Files that may be decoding or waiting while the graph runs."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A file that could be read: its row of the index, and what serving makes of its bytes."""

    row: IndexRow
    prepared: Prepared

    @property
    def image_HW(self) -> NDArray[np.uint8]:
        """The model's input."""
        return self.prepared.image_HW

    @property
    def metadata_M(self) -> NDArray[np.float32]:
        """Its metadata features, for graphs that read them."""
        (metadata_M,) = encode_metadata_features([self.prepared.metadata])
        return np.asarray(metadata_M)


def read_images(
    rows: Iterable[IndexRow],
    data_dir: Path,
    spec: PreprocessSpec,
    unreadable: list[UnansweredFile],
) -> Iterator[LabelledImage]:
    """Decode in threads, a bounded number of files ahead, and yield the images in order.

    Files that can't be read are appended to `unreadable`.
    """
    for row, read in _decode_ahead(rows, data_dir, _preparation(spec)):
        if isinstance(read, ImageError):
            unreadable.append(
                UnansweredFile(
                    image_id=row.image_id,
                    path=row.path,
                    label=row.label,
                    code=read.code,
                    detail=str(read),
                )
            )
        else:
            yield read


def read_picture(path: Path, spec: PreprocessSpec, side: int) -> NDArray[np.uint8]:
    """Return an image as people are shown it, at most `side` pixels long; raises `ImageError`."""
    picture_HW = prepare(path.read_bytes(), _preparation(spec, side)).preview_HW
    assert picture_HW is not None
    return picture_HW


def roles(bundle: Bundle) -> dict[str, Role]:
    """Return each file's role in making the bundle, by its hash, from splits.csv."""
    return {
        line["sha256"]: "fitted" if line["fitted"] == "yes" else "calibrated"
        for line in _splits(bundle)
    }


def held_out_novelty(bundle: Bundle) -> dict[str, float]:
    """Return each file's novelty by a network that did not learn from it, by its hash, from
    splits.csv.
    """
    return {
        line["sha256"]: float(line["novelty"]) for line in _splits(bundle) if line.get("novelty")
    }


def _decode_ahead(
    rows: Iterable[IndexRow], data_dir: Path, preparation: Preparation
) -> Iterator[tuple[IndexRow, LabelledImage | ImageError]]:
    waiting: deque[tuple[IndexRow, Future[LabelledImage | ImageError]]] = deque()
    with ThreadPoolExecutor(available_cores()) as pool:
        for row in rows:
            waiting.append((row, pool.submit(_read, row, data_dir, preparation)))
            if len(waiting) > _DECODED_AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _preparation(spec: PreprocessSpec, preview_side: int | None = None) -> Preparation:
    return Preparation(spec, DecodeLimits(), scope="refuse", preview_side=preview_side)


def _read(row: IndexRow, data_dir: Path, preparation: Preparation) -> LabelledImage | ImageError:
    try:
        return LabelledImage(row, prepare((data_dir / row.path).read_bytes(), preparation))
    except ImageError as exc:
        return exc


def _splits(bundle: Bundle) -> list[dict[str, str]]:
    path = bundle.path / "splits.csv"
    return read_table(path) if path.is_file() else []
