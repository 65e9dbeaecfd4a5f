"""Augmented copies of images of the rarer class, which fill it up; written as files to inspect.

    RUN/fold-<k>/generated/
        <image id>-made<number>.png   an augmented copy of that image
        generated.csv                 the source image of each file; written last

Only images that this model learns from are copied, so no held-out person is. Each image is copied
equally often (within one), and the same seed makes the same files.

Shape suffixes: N images, 1 channel, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.data.index import read_table, write_table
from training.errors import TrainingError
from training.fit.augment import augment
from training.fit.class_balance import draw
from training.progress import progress_bar
from training.recipe.schema import Augmentation

STRENGTHS = Augmentation(
    mirror=0.5,
    rotate_degrees=12.0,
    shift=0.06,
    scale=0.12,
    gamma=0.3,
    contrast=0.3,
    brightness=0.06,
    blur=0.0,
    noise=0.0,
)
"""What makes a copy another picture of the same finding: zoom, light, contrast, rotation, mirror.

Blur and noise are left to the augmentation of training, which both kinds of image go through.
"""

_COLUMNS = ("file", "source", "label")


class GenerateError(TrainingError):
    """Generated files do not match their table; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Generated:
    """Generated images of one class, in the order of their table."""

    image_NHW: NDArray[np.uint8]
    label_N: NDArray[np.int64]
    sources: tuple[str, ...]
    """The image id of each copy's source."""


def generate(
    image_NHW: NDArray[np.uint8],
    label_N: NDArray[np.int64],
    image_ids: Sequence[str],
    folder: Path,
    seed: int,
) -> Generated:
    """Generate as many images as the rarer class lacks, or read those of an earlier call.

    Args:
        image_NHW: the images that the model learns from, uint8.
        label_N: their labels.
        image_ids: their ids.
        folder: the folder to write to.
        seed: the seed of the choice of images and of their augmentation.

    Raises:
        GenerateError: a file that the table lists is gone or has another size.
    """
    if not (folder / "generated.csv").is_file():
        _make(image_NHW, label_N, image_ids, folder, seed)
    return _read(folder, image_NHW.shape[1:])


def _make(
    image_NHW: NDArray[np.uint8],
    label_N: NDArray[np.int64],
    image_ids: Sequence[str],
    folder: Path,
    seed: int,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rarer = int(label_N.mean() < 0.5)
    members = np.flatnonzero(label_N == rarer)
    lacking = len(label_N) - 2 * len(members)
    lines: list[tuple[str, str, str]] = []
    for position in progress_bar(
        iterable=draw(members, lacking, np.random.default_rng(seed)), desc="generate", unit="image"
    ):
        name = f"{image_ids[position]}-made{len(lines) + 1:05}.png"
        generator = torch.Generator().manual_seed(seed * 1_000_003 + len(lines))
        Image.fromarray(_changed(image_NHW[position], generator)).save(folder / name)
        lines.append((name, image_ids[position], str(rarer)))
    draft = folder / "generated.draft"
    write_table(draft, _COLUMNS, lines)
    draft.replace(folder / "generated.csv")


def _changed(image_HW: NDArray[np.uint8], generator: torch.Generator) -> NDArray[np.uint8]:
    image_N1HW = torch.from_numpy(np.array(image_HW))[None, None].float() / 255.0
    changed_HW: NDArray[np.uint8] = (
        (augment(image_N1HW, STRENGTHS, generator)[0, 0] * 255.0).round().to(torch.uint8).numpy()
    )
    return changed_HW


def _read(folder: Path, shape: tuple[int, ...]) -> Generated:
    lines = read_table(folder / "generated.csv")
    image_NHW = np.empty((len(lines), *shape), dtype=np.uint8)
    for number, line in enumerate(lines):
        try:
            image_NHW[number] = np.asarray(Image.open(folder / line["file"]))
        except (OSError, ValueError) as exc:
            raise GenerateError(
                f"{folder / line['file']} is gone or changed ({exc}); delete {folder} to make it "
                f"anew"
            ) from exc
    label_N = np.array([int(line["label"]) for line in lines], dtype=np.int64)
    return Generated(image_NHW, label_N, tuple(line["source"] for line in lines))
