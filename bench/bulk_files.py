"""Synthetic radiographs of three kinds for the proof of `bulk`."""

from itertools import cycle, islice
from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from cxr.phantom import draw_phantom
from tests.factories import make_dicom

SIDE = 384
NUM_DRAWINGS = 60
"""Of each kind; the files of one drawing differ in their PatientID, and so in their hash."""

MARK = b"MARKED-ID"
KINDS = {
    "jpeg": (JPEGBaseline8Bit, 8),
    "raw": (ExplicitVRLittleEndian, 12),
    "j2k": (JPEG2000Lossless, 12),
}


def make_files(folder: Path, num_files: int) -> None:
    """Write made radiographs: a third baseline JPEG, a third raw 12 bit, a third JPEG 2000."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {(kind, seed): _draw(kind, seed) for seed in range(NUM_DRAWINGS) for kind in KINDS}
    for number, (kind, seed) in enumerate(islice(cycle(drawn), num_files)):
        data = drawn[kind, seed].replace(MARK, f"{number:09}".encode())
        (folder / f"{number:06}-{kind}-{seed:02}.dcm").write_bytes(data)


def _draw(kind: str, seed: int) -> bytes:
    syntax, bits = KINDS[kind]
    pixels = draw_phantom(SIDE, SIDE, seed=seed)
    if bits == 8:
        return make_dicom(pixels, syntax=syntax)
    deep = pixels.astype(np.uint16) * 16 + seed % 16
    return make_dicom(deep, syntax=syntax, BitsStored=bits, HighBit=bits - 1)
