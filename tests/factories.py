"""Make DICOM, PNG and JPEG files with known pixels."""

import struct
from io import BytesIO
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from cxr.phantom import draw_phantom

Pixels = NDArray[Any]


def ramp(rows: int = 96, columns: int = 128, *, top: int = 255) -> Pixels:
    """A horizontal ramp from 0 to `top`, uint8 or uint16."""
    return np.tile(np.rint(np.linspace(0, top, columns)), (rows, 1)).astype(
        np.uint8 if top <= 255 else np.uint16
    )


def chest(rows: int = 256, columns: int = 256, *, seed: int = 0) -> Pixels:
    """A drawn chest, uint8."""
    return draw_phantom(rows, columns, seed=seed)


def make_png(pixels: Pixels) -> bytes:
    """A PNG of grey (8 or 16 bits) or RGB pixels."""
    return saved(Image.fromarray(pixels), "PNG")


def make_jpeg(pixels: Pixels, *, quality: int = 95, **options: Any) -> bytes:
    """A JPEG of grey or RGB pixels."""
    return saved(Image.fromarray(pixels), "JPEG", quality=quality, **options)


def make_flat_jpeg(rows: int, columns: int, *, level: int = 90) -> bytes:
    """A whole baseline JPEG of one grey, of whatever size: one row of blocks, repeated between
    restart markers."""
    strip = make_jpeg(np.full((8, columns), level, np.uint8))
    frame, scan = strip.index(b"\xff\xc0"), strip.rindex(b"\xff\xda")
    coded = scan + 2 + int.from_bytes(strip[scan + 2 : scan + 4], "big")
    interval = b"\xff\xdd" + struct.pack(">HH", 4, -(-columns // 8))
    head = (
        strip[: frame + 5]
        + struct.pack(">H", rows)
        + strip[frame + 7 : scan]
        + interval
        + strip[scan:coded]
    )
    restarts = (bytes((0xFF, 0xD0 + row % 8)) for row in range(-(-rows // 8) - 1))
    return head + b"".join(strip[coded:-2] + restart for restart in restarts) + strip[coded:]


def make_dicom(
    pixels: Pixels,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    raw: dict[str, bytes] | None = None,
    extra: Dataset | None = None,
    **tags: Any,
) -> bytes:
    """A CR chest file of the pixels.

    `tags` override or, with None, remove elements; `extra` has further ones.  `raw` patches values
    byte for byte after writing, for texts that pydicom would not write: {"058Y": b"62  "} must keep
    the length."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["tests"])
    meta.TransferSyntaxUID = syntax
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    for keyword, value in {**_defaults(pixels), **tags}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if tags.get("PixelData", b"") is not None and "PixelData" not in tags:
        _set_pixels(dataset, pixels, syntax)
    dataset.update(extra or {})
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    for old, new in (raw or {}).items():
        assert data.count(old.encode()) == 1
        assert len(old) == len(new)
        data = data.replace(old.encode(), new)
    return data


def _defaults(pixels: Pixels) -> dict[str, Any]:
    bits = 8 * pixels.itemsize
    color = pixels.ndim == 3
    return {
        "PatientName": "Marked^Name", "PatientID": "MARKED-ID", "PatientBirthDate": "",
        "PatientSex": "F", "PatientAge": "041Y",
        "Modality": "CR", "BodyPartExamined": "CHEST", "ViewPosition": "PA",
        "Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 3 if color else 1,
        "PhotometricInterpretation": "RGB" if color else "MONOCHROME2",
        "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **({"PlanarConfiguration": 0} if color else {}),
    }  # fmt: skip


def _set_pixels(dataset: Dataset, pixels: Pixels, syntax: UID) -> None:
    if (
        syntax in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
        or not syntax.is_compressed
    ):
        order: Literal["<", ">"] = "<" if syntax.is_little_endian else ">"
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    elif syntax == RLELossless:
        dataset.compress(
            RLELossless, pixels, encoding_plugin="pydicom", generate_instance_uid=False
        )
    else:
        dataset.PixelData = encapsulate([encode_frame(pixels, syntax)])
        dataset["PixelData"].VR = "OB"


def encode_frame(pixels: Pixels, syntax: UID) -> bytes:
    """Compress one frame as a transfer syntax wants it."""
    if syntax == JPEGBaseline8Bit:
        return make_jpeg(pixels)
    encoders = {
        JPEGLosslessSV1: lambda: imagecodecs.ljpeg_encode(pixels),
        JPEGLSLossless: lambda: imagecodecs.jpegls_encode(pixels),
        JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(
            pixels, codecformat="j2k", level=0, reversible=True
        ),
    }
    return bytes(encoders[syntax]())


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file of a kind that Pillow writes."""
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()
