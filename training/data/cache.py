"""Decode a data set once: uint8 images at the final size, in one file that can be mapped.

    cache/
        about.json      data set, size and preprocessing; if they change, decoding starts over
        images.u8       the readable images, one after another
        decoded.jsonl   a line for each image of the index: its metadata, or the reason why it can't
                        be read

Both files only grow, so an interrupted run resumes.

Shape suffixes: N images, H rows, W columns.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.decode import DecodeLimits, decode
from cxr.errors import ImageError
from cxr.preprocess import PreprocessSpec, preprocess
from training.data.index import DataIndex, IndexRow
from training.progress import progress_bar

_LOOKAHEAD = 16
"""Images that are decoded ahead of the one that is written."""


@dataclass(frozen=True, slots=True)
class UnreadableImage:
    """An image that decoding refused; it takes no part."""

    image_id: str
    reason: str


def build_cache(
    index: DataIndex, data_dirs: Sequence[Path], folder: Path, size: int
) -> tuple[DataIndex, tuple[UnreadableImage, ...]]:
    """Decode all images of an index as serving does, and read their age, sex and view.

    Returns:
        The index of the readable images in the order of the cache, with their metadata; and the
        refused images with the reason.
    """
    _start_over_if_changed(folder, index, PreprocessSpec(size=size))
    lines = _resume(folder, size)
    with ExitStack() as stack:
        pixels = stack.enter_context((folder / "images.u8").open("ab"))
        notes = stack.enter_context((folder / "decoded.jsonl").open("a", encoding="utf-8"))
        pool = stack.enter_context(ThreadPoolExecutor())
        for line, image in _decode_all(
            index.rows[len(lines) :], data_dirs, size, pool, done=len(lines)
        ):
            pixels.write(image)
            pixels.flush()
            notes.write(json.dumps(line) + "\n")
            notes.flush()
            lines.append(line)
    pairs = list(zip(index.rows, lines, strict=True))
    readable = tuple(
        replace(row, **{name: value for name, value in line["states"].items() if value is not None})
        for row, line in pairs
        if line["unreadable"] is None
    )
    refused = tuple(
        UnreadableImage(row.image_id, line["unreadable"])
        for row, line in pairs
        if line["unreadable"] is not None
    )
    return replace(index, rows=readable), refused


def map_cache(folder: Path, count: int, size: int) -> NDArray[np.uint8]:
    """Map a finished cache as `image_NHW`, read only."""
    return np.memmap(folder / "images.u8", dtype=np.uint8, mode="r", shape=(count, size, size))


def _decode_all(
    rows: tuple[IndexRow, ...], data_dirs: Sequence[Path], size: int, pool: Executor, *, done: int
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Decode in parallel, in order, a few images ahead."""
    paths = iter([data_dirs[row.folder] / row.path for row in rows])
    waiting = [pool.submit(_decode_one, path, size) for path in islice(paths, _LOOKAHEAD)]
    with progress_bar(total=done + len(rows), initial=done, desc="decode", unit="image") as bar:
        while waiting:
            answer = waiting.pop(0).result()
            waiting += [pool.submit(_decode_one, path, size) for path in islice(paths, 1)]
            bar.update()
            yield answer


def _decode_one(path: Path, size: int) -> tuple[dict[str, Any], bytes]:
    try:
        radiograph = decode(path.read_bytes(), limits=DecodeLimits(), size=size)
    except ImageError as exc:
        return {"unreadable": f"{exc.code}: {exc}", "states": {}}, b""
    states = asdict(radiograph.metadata)
    del states["source"]
    return {"unreadable": None, "states": states}, preprocess(
        radiograph, PreprocessSpec(size=size)
    ).tobytes()


def _start_over_if_changed(folder: Path, index: DataIndex, spec: PreprocessSpec) -> None:
    about = {
        "images": len(index),
        "fingerprint": index.fingerprint,
        "preprocess": spec.model_dump(),
    }
    path = folder / "about.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) == about:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("images.u8", "decoded.jsonl"):
        (folder / name).unlink(missing_ok=True)
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _resume(folder: Path, size: int) -> list[dict[str, Any]]:
    """Read what is there, and cut off what a sudden end left half-written."""
    images, notes = folder / "images.u8", folder / "decoded.jsonl"
    if not notes.is_file():
        return []
    texts = notes.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [text for text in texts if text.endswith("\n")]
    lines = [json.loads(text) for text in whole]
    readable = sum(line["unreadable"] is None for line in lines)
    with images.open("r+b") as file:
        file.truncate(readable * size * size)  # an image is written before its line
    notes.write_text("".join(whole), encoding="utf-8")
    return lines
