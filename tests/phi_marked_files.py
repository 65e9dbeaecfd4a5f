"""Files that carry marked patients wherever a file can carry one, sound and broken in every way
that is answered.

`find_marks` tells what of them can be read in a text, however it was written there.
"""

import base64
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.factories import Pixels, chest, make_dicom, make_jpeg, saved

MARK = "ZQMARK"
BORN, STUDIED, AT = "19470811", "20170704", "134711"
FOREIGN = "標識山田"
"""A name in another script: as it is, and as escapes and other encodings would show it."""

_TRACES = (
    MARK, BORN, STUDIED, AT, "1947-08-11", FOREIGN, ascii(FOREIGN).strip("'"),
    repr(FOREIGN.encode())[2:-1], quote(FOREIGN),
    base64.b64encode(MARK.encode() * 3).decode()[4:16], MARK.encode().hex(),
)  # fmt: skip

SYNTAXES = (
    ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit,
    JPEGLosslessSV1, JPEGLSLossless,
    JPEG2000Lossless,
)  # fmt: skip


def find_marks(text: str) -> set[str]:
    """Give every mark that stands in a text."""
    return {trace for trace in _TRACES if re.search(re.escape(trace), text, re.IGNORECASE)}


def marked_dicom(
    pixels: Pixels | None = None, *, syntax: UID = ExplicitVRLittleEndian, **tags: Any
) -> bytes:
    """A file whose names, numbers, dates, comments, items and private elements are all marked."""
    texts = {
        keyword: f"{MARK} {keyword}"
        for keyword in (
            "PatientID", "IssuerOfPatientID", "PatientComments", "ImageComments",
            "StudyDescription", "ProtocolName",
            "InstitutionName", "OperatorsName", "ReferringPhysicianName",
            "AdditionalPatientHistory",
            "RequestedProcedureDescription", "SeriesDescription",
        )
    }  # fmt: skip
    identity = {
        **texts, "SpecificCharacterSet": "ISO_IR 192", "PatientName": f"{MARK}^Anna={FOREIGN}",
        "StationName": MARK,
        "PatientBirthDate": BORN, "StudyDate": STUDIED, "StudyTime": AT, "StudyID": MARK,
        "AccessionNumber": MARK,
        "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4",
        "AnatomicRegionSequence": Sequence([item(CodeValue="51185008", CodeMeaning=MARK)]),
        "OtherPatientIDsSequence": Sequence([item(PatientID=MARK)]),
    }  # fmt: skip
    return make_dicom(
        chest(128, 128) if pixels is None else pixels,
        syntax=syntax,
        extra=_private_elements(),
        **{**identity, **tags},
    )


def _private_elements() -> Dataset:
    dataset = Dataset()
    block = dataset.private_block(0x0011, f"{MARK} CREATOR", create=True)
    block.add_new(1, "LO", MARK)
    block.add_new(2, "UN", FOREIGN.encode())
    return dataset


def item(**tags: Any) -> Dataset:
    """One item of a sequence."""
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def marked_png(rows: int = 128, columns: int = 128) -> bytes:
    """A PNG with marks in every kind of text chunk, in EXIF and in its profile's name."""
    texts = PngInfo()
    texts.add_text("PatientName", f"{MARK}^Anna")
    texts.add_text("Comment", f"{MARK} {BORN}", zip=True)
    texts.add_itxt("PatientName", FOREIGN, tkey=MARK)
    return saved(
        Image.fromarray(chest(rows, columns)),
        "PNG",
        pnginfo=texts,
        exif=_marked_exif(),
        icc_profile=MARK.encode(),
    )


def marked_jpeg(rows: int = 128, columns: int = 128) -> bytes:
    """A JPEG with marks in its comment, its EXIF and its profile."""
    return make_jpeg(
        chest(rows, columns),
        comment=f"{MARK} {BORN}",
        exif=_marked_exif(),
        icc_profile=MARK.encode(),
    )


def _marked_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x0132] = f"{MARK} {FOREIGN}", MARK, "1947:08:11 00:00:00"
    return exif


def sound_files() -> Iterator[tuple[str, bytes]]:
    """Marked files that are answered."""
    for syntax in SYNTAXES:
        yield f"a DICOM file of {syntax.name}", marked_dicom(syntax=syntax)
    yield (
        "a DICOM file of strange facts",
        marked_dicom(PatientSex="Z", ViewPosition=MARK, raw={"041Y": MARK[:4].encode()}),
    )
    yield (
        "a DICOM file of an unknown character set",
        marked_dicom(raw={"ISO_IR 192": b"ISO_ZQMARK"}),
    )
    numbers: dict[str, Any] = {
        "WindowCenter": 123456,
        "WindowWidth": 234567,
        "RescaleSlope": 345678,
        "RescaleIntercept": 0,
    }
    yield (
        "a DICOM file of marked numbers",
        marked_dicom(**numbers, raw={"123456": b"ZQMARK", "345678": b"ZQMARK"}),
    )
    yield "a PNG", marked_png()
    yield "a JPEG", marked_jpeg()


def broken_files() -> Iterator[tuple[str, bytes]]:
    """Marked files that get an error, of every kind that a file can get."""
    yield from _unreadable_files()
    yield from _unsuitable_files()
    for syntax in SYNTAXES:
        data = marked_dicom(syntax=syntax)
        yield f"half a file of {syntax.name}", data[: len(data) // 2 + 600]
        yield f"scrambled pixels of {syntax.name}", data[:-3000] + scrambled(data[-3000:])
    for kind, data in (("PNG", marked_png()), ("JPEG", marked_jpeg())):
        yield f"half a {kind}", data[: len(data) * 2 // 3]
        yield f"a scrambled {kind}", data[:900] + scrambled(data[900:])
    yield "a PNG that inflates over its size", png_bomb(9000)
    yield "a deflated file that inflates without end", deflate_bomb(32 * 2**20)


def _unreadable_files() -> Iterator[tuple[str, bytes]]:
    text = f"{MARK} {BORN} {FOREIGN} ".encode() * 9
    yield "a text", text
    yield "a text that says DICM", text.ljust(128)[:128] + b"DICM" + text
    yield (
        "an unknown transfer syntax",
        marked_dicom(raw={ExplicitVRLittleEndian: b"1.2.840.10008.ZQMARK"[:19]}),
    )
    yield "meta information that is text", marked_dicom()[:140] + text
    yield "a header that turns into text", marked_dicom()[:600] + text
    yield (
        "frames that are text",
        marked_dicom(syntax=JPEG2000Lossless, PixelData=encapsulate([text])),
    )
    yield (
        "a sequence that is text",
        marked_dicom(raw={"51185008": b"\xfe\xff\x00\xe0\xff\xff\xff\x7f"}),
    )
    yield (
        "texts that are none of their character set",
        marked_dicom(raw={"Anna=": b"\xff\xfe\xff\xfe\xff"}),
    )


def _unsuitable_files() -> Iterator[tuple[str, bytes]]:
    unsuitable: dict[str, dict[str, Any]] = {
        "another modality": {"Modality": MARK},
        "another body part": {"BodyPartExamined": MARK},
        "a lateral view": {"ViewPosition": "LATERAL"},
        "a number of frames that is text": {
            "NumberOfFrames": 123456,
            "raw": {"123456": MARK.encode()},
        },
        "no rows": {"Rows": None},
        "no sense in its bits": {"BitsStored": 0},
        "an unknown photometric interpretation": {"PhotometricInterpretation": MARK},
        "a palette that is not there": {"PhotometricInterpretation": "PALETTE COLOR"},
        "no pixels": {"PixelData": None},
        "too few pixels in its data": {"PixelData": MARK.encode() * 9},
        "a size over the limit": {"Rows": 60000, "Columns": 60000},
    }
    for what, tags in unsuitable.items():
        yield f"a DICOM file with {what}", marked_dicom(**tags)
    yield "a thumbnail", marked_png(40, 40)


def scrambled(data: bytes) -> bytes:
    """Bytes with every 97th turned over."""
    values = np.frombuffer(data, np.uint8).copy()
    values[::97] ^= 0xFF
    return values.tobytes()


def deflate_bomb(inflated_bytes: int = 300 * 2**20) -> bytes:
    """A deflated file that inflates to zeros without an end in sight."""
    head = marked_dicom(syntax=DeflatedExplicitVRLittleEndian)
    meta_end = 132 + 12 + int.from_bytes(head[140:144], "little")
    deflater = zlib.compressobj(9, wbits=-15)
    element = struct.pack("<HH2sHL", 0x0009, 0x0010, b"UN", 0, inflated_bytes)
    block = deflater.compress(element)
    zeros = bytes(2**20)
    body = b"".join(deflater.compress(zeros) for _ in range(inflated_bytes // len(zeros)))
    return head[:meta_end] + block + body + deflater.flush()


def png_bomb(side: int = 30_000) -> bytes:
    """A whole PNG with right sums that is black and far too large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">L", len(content))
            + kind
            + content
            + struct.pack(">L", zlib.crc32(kind + content))
        )

    deflater = zlib.compressobj(9)
    row = bytes(1 + side)
    pixels = b"".join(deflater.compress(row) for _ in range(side)) + deflater.flush()
    header = struct.pack(">LLBBBBB", side, side, 8, 0, 0, 0, 0)
    text = b"PatientName\0" + MARK.encode()
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"tEXt", text), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )
