"""Make data folders as large as the public ones, of phantoms, to measure what training needs.

    python -m bench.full_size DIR

writes `DIR/siim` (12,000 DICOM files and a table of masks) and `DIR/nih` (a table of 112,120 rows
and 20,000 PNG files). docs/training.md says what was measured on them.
"""

import argparse
import csv
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from cxr.phantom import UID_ROOT, draw_phantom
from training.progress import progress_bar

SIIM_FILES = 12_000
NIH_ROWS = 112_120
NIH_FILES = 20_000
SIDE = 128
"""Pixels on a side: files are as many as the public ones, and smaller."""

_PATCH = 16
"""Each patch of so many pixels is lighter or darker by chance, so that no two images are alike."""

_POSITIVE_EVERY = 5
_IMAGES_A_PERSON = 4


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    make_siim(folder / "siim", SIIM_FILES)
    make_nih(folder / "nih", NIH_ROWS, NIH_FILES)


def make_siim(folder: Path, files: int) -> None:
    """Write a tree of DICOM files with a table of masks; every fifth has two."""
    images = folder / "dicom-images-train"
    images.mkdir(parents=True)
    rows: list[tuple[str, str]] = []
    for number in progress_bar(iterable=range(files), desc="DICOM", unit="file"):
        name = f"{UID_ROOT}.{number}"
        _dicom(number, name).save_as(images / f"{name}.dcm", enforce_file_format=True)
        runs = ["9000 40", "12000 30"] if number % _POSITIVE_EVERY == 0 else ["-1"]
        rows += [(name, run) for run in runs]
    _write_table(folder / "train-rle.csv", ("ImageId", " EncodedPixels"), iter(rows))


def make_nih(folder: Path, rows: int, files: int) -> None:
    """Write NIH's table, and images for its first rows."""
    images = folder / "images"
    images.mkdir(parents=True)
    names = [f"{number // 3:08d}_{number % 3:03d}.png" for number in range(rows)]
    for number in progress_bar(iterable=range(files), desc="PNG", unit="file"):
        _picture(SIIM_FILES + number).save(images / names[number], compress_level=1)
    header = (
        "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
        "Patient Gender", "View Position",
    )  # fmt: skip
    table = (
        (
            name,
            "Pneumothorax|Effusion" if number % _POSITIVE_EVERY == 0 else "No Finding",
            str(number % 3),
            str(number // 3),
            str(20 + number % 60),
            "MF"[number % 2],
            ("PA", "AP")[number % 2],
        )
        for number, name in enumerate(names)
    )
    _write_table(folder / "Data_Entry_2017_v2020.csv", header, table)


@cache
def _phantom() -> NDArray[np.int16]:
    return draw_phantom(SIDE, SIDE).astype(np.int16)


def _picture(number: int) -> Image.Image:
    """Return a phantom with patches of other greys, as `number` draws them."""
    patches = SIDE // _PATCH
    change_hw = np.random.default_rng(number).integers(-60, 60, (patches, patches), dtype=np.int16)
    change_HW = np.kron(change_hw, np.ones((_PATCH, _PATCH), np.int16))
    return Image.fromarray(np.clip(_phantom() + change_HW, 0, 255).astype(np.uint8))


def _dicom(number: int, name: str) -> Dataset:
    """Return a Secondary Capture with JPEG pixels, as SIIM-ACR has them."""
    buffer = BytesIO()
    _picture(number).save(buffer, "JPEG", quality=92)
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = name
    dataset.Modality = "CR"
    dataset.PatientID = f"person-{number // _IMAGES_A_PERSON}"
    dataset.PatientAge = f"0{20 + number // _IMAGES_A_PERSON % 60}Y"
    dataset.PatientSex = "MF"[number // _IMAGES_A_PERSON % 2]
    dataset.ViewPosition = ("PA", "AP")[number % 2]
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return dataset


def _write_table(path: Path, header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
