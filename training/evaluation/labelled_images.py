"""Read labelled images as serving does: decode in threads, with each file's role for the bundle.

Shape suffixes: H and W input rows and columns, M columns of metadata.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle
from cxr.decode import DecodeLimits, decode
from cxr.errors import ImageError
from cxr.evaluation_schema import UnansweredFile
from cxr.metadata_features import encode_metadata_features
from cxr.preprocess import PreprocessSpec, preprocess
from cxr.radiograph import Radiograph
from training.data import IndexRow
from training.data.index import read_table
from training.evaluation.prediction import Role

_DECODED_AHEAD = 32
"""Files that may be decoding or waiting while the graph runs."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A file that could be read: its row of the index, its content, and the model's input."""

    row: IndexRow
    radiograph: Radiograph
    image_HW: NDArray[np.uint8]

    @property
    def metadata_M(self) -> NDArray[np.float32]:
        """Its metadata features, for graphs that read them."""
        (metadata_M,) = encode_metadata_features([self.radiograph.metadata])
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
    for row, read in _decode_ahead(rows, data_dir, spec):
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
    rows: Iterable[IndexRow], data_dir: Path, spec: PreprocessSpec
) -> Iterator[tuple[IndexRow, LabelledImage | ImageError]]:
    waiting: deque[tuple[IndexRow, Future[LabelledImage | ImageError]]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in rows:
            waiting.append((row, pool.submit(_decode, row, data_dir, spec)))
            if len(waiting) > _DECODED_AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _decode(row: IndexRow, data_dir: Path, spec: PreprocessSpec) -> LabelledImage | ImageError:
    data = (data_dir / row.path).read_bytes()
    try:
        radiograph = decode(data, limits=DecodeLimits(), size=spec.size)
    except ImageError as exc:
        return exc
    return LabelledImage(row, radiograph, preprocess(radiograph, spec))


def _splits(bundle: Bundle) -> list[dict[str, str]]:
    path = bundle.path / "splits.csv"
    return read_table(path) if path.is_file() else []
