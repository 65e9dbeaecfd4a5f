"""How users read an upload themselves, with pydicom and Pillow alone.

    read_carefully   pydicom's header, then a JPEG decoded at a fraction of its size (DCT scaling)
    read_leanly      the same without pydicom: the JPEG is found by its first bytes
    read_plainly     pydicom's `pixel_array`, all of it, then a resize

Both take a DICOM file and fall back to Pillow for PNG and JPEG, as most code does.

Shape suffixes: N images, H and W input rows and columns.
"""

import os
from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import generate_frames

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_START = b"\xff\xd8\xff"
_PREAMBLE = slice(128, 132)


def input_side() -> int:
    """Give rows and columns of the graph's input."""
    return int(os.environ["BENCH_SIZE"])


def read_carefully(data: bytes) -> NDArray[np.uint8]:
    """Make `image_NHW`, uint8 [1, size, size], and decode no pixel that the resize throws away."""
    if data[_PREAMBLE] != b"DICM":
        return _shrink(Image.open(BytesIO(data)))
    dataset = pydicom.dcmread(BytesIO(data))
    if dataset.file_meta.TransferSyntaxUID != JPEG_BASELINE:
        return _shrink(_whole_picture(dataset))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return _shrink(_upright(Image.open(BytesIO(frame)), dataset))


def read_leanly(data: bytes) -> NDArray[np.uint8]:
    """Make `image_NHW` of a JPEG baseline file by the least work that there is."""
    return _shrink(Image.open(BytesIO(memoryview(data)[data.index(JPEG_START) :])))


def read_plainly(data: bytes) -> NDArray[np.uint8]:
    """Make `image_NHW`, uint8 [1, size, size], from every pixel."""
    side = input_side()
    if data[_PREAMBLE] == b"DICM":
        picture = _whole_picture(pydicom.dcmread(BytesIO(data)))
    else:
        picture = Image.open(BytesIO(data)).convert("L")
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), np.uint8)[None]


def _whole_picture(dataset: pydicom.Dataset) -> Image.Image:
    pixels_HW = dataset.pixel_array.astype(np.float32)
    low, high = float(pixels_HW.min()), float(pixels_HW.max())
    grey_HW = (pixels_HW - low) * (255 / max(1.0, high - low))
    return _upright(Image.fromarray(grey_HW.astype(np.uint8)), dataset)


def _upright(picture: Image.Image, dataset: pydicom.Dataset) -> Image.Image:
    if dataset.PhotometricInterpretation != "MONOCHROME1":
        return picture
    return Image.fromarray(255 - np.asarray(picture, np.uint8))


def _shrink(picture: Image.Image) -> NDArray[np.uint8]:
    side = input_side()
    picture.draft("L", (side, side))
    small = picture.convert("L").resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.uint8)[None]
