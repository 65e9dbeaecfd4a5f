"""The files that are sent: drawn chests, so that anybody can repeat the measurement, or one real
file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import JPEGBaseline8Bit

from cxr.phantom import draw_phantom
from tests.factories import make_dicom, make_png


@dataclass(frozen=True)
class Upload:
    """One file."""

    name: str
    title: str
    data: bytes
    media_type: str

    @property
    def description(self) -> str:
        return f"{self.title}, {len(self.data) / 1000:,.0f} kB"


def make_uploads(real: Path | None = None) -> list[Upload]:
    """Make the files; the first is the one that all servers are measured on, and `real` takes its
    place."""
    pixels_HW = draw_phantom(1024, 1024)
    deep_HW = draw_phantom(2500, 2000).astype(np.uint16) * 16
    title = "the DICOM file given by --data" if real else "DICOM, JPEG baseline, 1024 x 1024, drawn"
    dicom = real.read_bytes() if real else make_dicom(pixels_HW, syntax=JPEGBaseline8Bit)
    return [
        Upload("dicom", title, dicom, "application/dicom"),
        Upload("png", "PNG, 1024 x 1024, drawn", make_png(pixels_HW), "image/png"),
        Upload(
            "deep",
            "DICOM, uncompressed, 12 bits, 2000 x 2500, drawn",
            make_dicom(deep_HW, BitsStored=12, HighBit=11),
            "application/dicom",
        ),
    ]
