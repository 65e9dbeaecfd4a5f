"""Read a DICOM file's data set within bounds, and its values without trusting them.

Values are taken from their raw bytes: real files carry values that break their
own type (ages without a unit), and pydicom's complaints would quote them.
"""

import zlib
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import pydicom.config
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cxr.errors import CorruptImage, TooLarge, UnsupportedFormat

PREAMBLE_BYTES = 128
MAGIC = b"DICM"


def is_dicom(data: bytes) -> bool:
    """Tell whether the bytes have DICOM's preamble and prefix (PS3.10 section 7.1)."""
    return data[PREAMBLE_BYTES : PREAMBLE_BYTES + len(MAGIC)] == MAGIC


def read_meta(data: bytes) -> tuple[FileMetaDataset, int]:
    """Read the File Meta Information (group 0002), and where it ends.

    Raises:
        UnsupportedFormat: it names no transfer syntax.
        CorruptImage: it can't be read.
    """
    stream = BytesIO(data)
    stream.seek(PREAMBLE_BYTES + len(MAGIC))
    try:
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_group_2)
        file_meta = FileMetaDataset(meta)
    except Exception as exc:  # pydicom lets struct, key, value and attribute errors through
        raise CorruptImage("The DICOM file's meta information can't be read.") from exc
    if not text(meta, "TransferSyntaxUID"):
        raise UnsupportedFormat("The DICOM file names no transfer syntax.")
    return file_meta, stream.tell()


def transfer_syntax(meta: FileMetaDataset) -> UID:
    """Give the transfer syntax that the file says it has."""
    return UID(text(meta, "TransferSyntaxUID"))


def read_header(data: bytes, *, max_inflated_bytes: int) -> Dataset:
    """Read the whole data set, values still raw; a deflated one is inflated up to the limit.

    Raises:
        UnsupportedFormat: no transfer syntax is named.
        TooLarge: the data set would inflate over the limit.
        CorruptImage: it can't be read to its end.
    """
    meta, end = read_meta(data)
    try:
        if transfer_syntax(meta) == DeflatedExplicitVRLittleEndian:
            stream = BytesIO(_inflate(data[end:], max_inflated_bytes))
            dataset = read_dataset(stream, is_implicit_VR=False, is_little_endian=True)
        else:
            dataset = dcmread(BytesIO(data))
    except (TooLarge, MemoryError):
        raise
    except Exception as exc:  # as above; RecursionError where sequences nest without end
        raise CorruptImage("The DICOM data set can't be read to its end.") from exc
    dataset.file_meta = meta
    return dataset


def text(dataset: Dataset, keyword: str) -> str:
    """Give an element's first value as plain text, "" where it is absent; never raises."""
    return texts(dataset, keyword)[0]


def texts(dataset: Dataset, keyword: str) -> list[str]:
    r"""Give all values (separated by a backslash) as plain text; [""] where it is absent.

    Only bytes of ASCII's range mean anything to us, so the character set does not matter.
    """
    try:
        value: Any = dataset.get_item(keyword)
    except Exception:
        return [""]
    raw = getattr(value, "value", None)
    if raw is None:
        return [""]
    if isinstance(raw, bytes):
        values = raw.decode("latin-1").split("\\")
    else:  # pydicom has converted it already
        values = [str(raw)] if isinstance(raw, str) or not isinstance(raw, Iterable) else [str(one) for one in raw] or [""]
    return [value.strip(" \0\t\r\n") for value in values]


def quiet_pydicom() -> None:
    """Keep pydicom from checking values aloud: its complaints quote what patients' files say."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.logger.disabled = True


def _after_group_2(tag: Any, _vr: str | None, _length: int) -> bool:
    return bool(tag.group != 2)


def _inflate(deflated: bytes, max_bytes: int) -> bytes:
    """Inflate a raw deflate stream (PS3.5 A.5), never making more than the limit."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, max_bytes)
    if inflater.unconsumed_tail:
        raise TooLarge(f"The deflated DICOM file would inflate to more than {max_bytes} bytes.")
    return inflated
