"""Header and encapsulation quirks: one radiograph as different stations and archives store it.

Each quirk leaves the image that is meant unchanged, or damages it on purpose.

Shape suffixes: H rows, W columns.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from random import Random
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from fuzz.orientations import ORIENTED
from tests.factories import make_dicom

Pixels = NDArray[Any]

_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
BORDER = 12
"""Black pixels at each edge of an image, which a shutter may cover."""

_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"
_END = b"\xff\xd9"


@dataclass
class Draft:
    """A file that is being made: its stored values, its tags, how its bytes are put together."""

    random: Random
    stored: Pixels
    syntax: UID = ExplicitVRLittleEndian
    tags: dict[str, Any] = field(default_factory=dict)
    frame: bytes | None = None
    names: list[str] = field(default_factory=list)
    is_damaged: bool = False


def write_quirky(image_HW: NDArray[np.uint8], seed: int) -> tuple[bytes, list[str], bool]:
    """Return a file of an image, the names of its quirks, and whether its scan was damaged."""
    draft = Draft(Random(seed), image_HW)
    for quirk in _OF_THE_IMAGE:
        if draft.random.random() < 0.3:
            quirk(draft)
    draft.random.choice(_OF_THE_DEPTH)(draft)
    draft.random.choice(_OF_THE_CODING)(draft)
    for quirk in draft.random.sample(_OF_THE_HEADER, draft.random.randint(0, 3)):
        quirk(draft)
    if draft.frame is not None and draft.random.random() < 0.15:
        _damage(draft)
    return _bytes_of(draft), draft.names, draft.is_damaged


# --- the image ---


def _orientation(draft: Draft) -> None:
    directions = draft.random.choice(list(ORIENTED))
    draft.stored = np.ascontiguousarray(ORIENTED[directions](draft.stored))
    draft.tags["PatientOrientation"] = list(directions)
    draft.names.append("orientation " + "".join(directions))


def _shutter(draft: Draft) -> None:
    rows, columns = draft.stored.shape
    white = np.full_like(draft.stored, 255)
    open_area = np.s_[BORDER:-BORDER, BORDER:-BORDER]
    white[open_area] = draft.stored[open_area]
    draft.stored = white
    draft.tags |= {
        "ShutterShape": "RECTANGULAR",
        "ShutterLeftVerticalEdge": BORDER + 1,
        "ShutterRightVerticalEdge": columns - BORDER,
        "ShutterUpperHorizontalEdge": BORDER + 1,
        "ShutterLowerHorizontalEdge": rows - BORDER,
        "ShutterPresentationValue": 0,
    }
    draft.names.append("shutter")


_OF_THE_IMAGE: list[Callable[[Draft], None]] = [_orientation, _shutter]


# --- depth and grey scale ---


def _plain(draft: Draft) -> None:
    draft.names.append("8 bits")


def _inverted(draft: Draft) -> None:
    draft.stored = 255 - draft.stored
    draft.tags["PhotometricInterpretation"] = "MONOCHROME1"
    draft.names.append("MONOCHROME1")


def _deep(draft: Draft) -> None:
    bits = draft.random.choice([10, 12, 14, 16])
    draft.stored = draft.stored.astype(np.uint16) * ((2**bits - 1) // 255)
    top = 255 * ((2**bits - 1) // 255)
    draft.tags |= {"BitsStored": bits, "HighBit": bits - 1}
    draft.tags |= {"WindowCenter": (top + 1) / 2, "WindowWidth": top + 1}
    draft.names.append(f"{bits} bits, window")


def _voi_lut(draft: Draft) -> None:
    bits = draft.random.choice([8, 10, 12, 13, 14, 15, 16])
    lut = Dataset()
    lut.LUTDescriptor = [256, 0, 16]
    lut.LUTData = [int(entry) for entry in np.rint(np.linspace(0, 2**bits - 1, 256))]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    draft.tags["VOILUTSequence"] = Sequence([lut])
    draft.names.append(f"VOI LUT of {bits} bits called 16")


def _negative_slope(draft: Draft) -> None:
    draft.stored = 255 - draft.stored
    draft.tags |= {"RescaleSlope": -1, "RescaleIntercept": 255}
    draft.tags |= {"WindowCenter": 128, "WindowWidth": 256}
    draft.names.append("negative slope")


_OF_THE_DEPTH = [_plain, _plain, _inverted, _deep, _deep, _voi_lut, _negative_slope]


# --- coding ---


def _native(draft: Draft) -> None:
    draft.syntax = draft.random.choice(_NATIVE)
    draft.names.append(draft.syntax.name)


def _rle(draft: Draft) -> None:
    draft.syntax = RLELossless
    draft.names.append("RLE")


def _jpeg(draft: Draft) -> None:
    if draft.stored.dtype != np.uint8:
        draft.syntax = JPEGLSLossless
        draft.frame = bytes(imagecodecs.jpegls_encode(draft.stored))
        draft.names.append("JPEG-LS")
        return
    options: dict[str, Any] = {"progressive": True} if draft.random.random() < 0.2 else {}
    picture = Image.fromarray(draft.stored)
    is_inverted = draft.tags.get("PhotometricInterpretation") == "MONOCHROME1"
    if draft.random.random() < 0.3 and not is_inverted and not _has_grey_scale(draft):
        picture = picture.convert("RGB")
        photometric = draft.random.choice(["RGB", "YBR_FULL_422", "YBR_FULL"])
        draft.tags |= {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
        draft.tags["PhotometricInterpretation"] = photometric
        draft.names.append(f"YCbCr called {photometric}")
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=97, **options)
    draft.syntax, draft.frame = JPEGBaseline8Bit, buffer.getvalue()
    draft.names.append("progressive JPEG" if options else "JPEG")


def _has_grey_scale(draft: Draft) -> bool:
    return bool(draft.tags.keys() & {"VOILUTSequence", "RescaleSlope", "WindowCenter"})


def _deep_jpeg(draft: Draft) -> None:
    lossless = draft.random.random() < 0.6
    if draft.stored.dtype == np.uint8 or lossless:
        draft.syntax = JPEGLosslessSV1
        draft.frame = bytes(imagecodecs.ljpeg_encode(draft.stored))
        draft.names.append("JPEG lossless")
        return None
    if draft.tags["BitsStored"] > 12:
        return _native(draft)
    draft.syntax = JPEGExtended12Bit
    draft.frame = bytes(imagecodecs.jpeg_encode(draft.stored, level=97, bitspersample=12))
    draft.names.append("JPEG extended")
    return None


def _jpeg_2000(draft: Draft) -> None:
    draft.syntax = JPEG2000Lossless
    draft.frame = bytes(
        imagecodecs.jpeg2k_encode(draft.stored, codecformat="j2k", level=0, reversible=True)
    )
    draft.names.append("JPEG 2000")


_OF_THE_CODING = [_native, _native, _rle, _jpeg, _jpeg, _jpeg, _deep_jpeg, _jpeg_2000]


# --- header ---


def _missing(draft: Draft) -> None:
    keyword = draft.random.choice(["SamplesPerPixel", "PixelRepresentation"])
    if draft.syntax != RLELossless:
        draft.tags[keyword] = None
        draft.names.append(f"no {keyword}")


def _body_part(draft: Draft) -> None:
    draft.tags["BodyPartExamined"] = draft.random.choice(["TORAX", "PECHO", "THORAX", "", "LUNG"])
    draft.names.append("body part")


def _modality(draft: Draft) -> None:
    draft.tags["Modality"] = draft.random.choice(["DR", "DX", "OT", "RG", ""])
    draft.names.append("modality")


def _padding_tag(draft: Draft) -> None:
    draft.tags["PixelAspectRatio"] = [1, 1]
    draft.tags["BurnedInAnnotation"] = "NO"
    draft.names.append("further tags")


def _exchanged(draft: Draft) -> None:
    if draft.frame is None and draft.stored.shape[0] != draft.stored.shape[1]:
        draft.stored = draft.stored.reshape(draft.stored.shape[::-1])
        draft.names.append("rows and columns exchanged")


_OF_THE_HEADER = [_missing, _body_part, _modality, _padding_tag, _exchanged]


# --- bytes ---


def _damage(draft: Draft) -> None:
    frame = draft.frame
    assert frame is not None
    start = draft.random.randint(len(frame) // 4, len(frame) - 600)
    kind = draft.random.choice(["zeros", "missing", "cut"])
    if kind == "zeros":
        draft.frame = frame[:start] + bytes(64) + frame[start + 64 :]
    elif kind == "missing":
        draft.frame = frame[:start] + frame[start + 512 :]
    else:
        draft.frame = frame[:start] + _END
    draft.is_damaged = True
    draft.names.append(f"damaged: {kind}")


def _bytes_of(draft: Draft) -> bytes:
    tags = dict(draft.tags)
    if draft.frame is not None:
        tags["PixelData"] = encapsulate([draft.frame])
    data = make_dicom(draft.stored, syntax=draft.syntax, **tags)
    if draft.frame is not None and draft.random.random() < 0.4:
        data = _encapsulated_anew(data, draft)
    if draft.random.random() < 0.2:
        data += bytes(draft.random.choice([1, 8, 1000, 300_000]))
        draft.names.append("NULs behind")
    return data


def _encapsulated_anew(data: bytes, draft: Draft) -> bytes:
    """Write the fragments with another division, offset table and end."""
    assert draft.frame is not None
    frame = draft.frame + bytes(len(draft.frame) % 2)
    size = draft.random.choice([4096, 1 << 30])
    parts = [frame[start : start + size] for start in range(0, len(frame), size)]
    offsets = struct.pack(f"<{len(parts)}L", *(index * (size + 8) for index in range(len(parts))))
    table = draft.random.choice([b"", offsets, b"junk" * 3])
    end = draft.random.choice([_DELIMITER, b"", bytes(8)])
    start = data.rindex(b"\xe0\x7f\x10\x00OB") + 12
    items = b"".join(
        b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in [table, *parts]
    )
    draft.names.append("fragments, offset table, end")
    return data[:start] + items + end
