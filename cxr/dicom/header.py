"""Read a DICOM file's data set within bounds, and its values without trusting them.

Values are taken from their raw bytes: real files carry values that break their
own type (ages without a unit), and pydicom's complaints would quote them.
"""

import unicodedata
import zlib
from collections.abc import Iterable
from typing import Any

import pydicom.charset
import pydicom.config
from pydicom import dcmread
from pydicom.charset import convert_encodings, decode_bytes, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cxr.bounded import BoundedReads
from cxr.errors import CorruptImage, TooLarge, UnsupportedFormat

PREAMBLE_BYTES = 128
MAGIC = b"DICM"

MAX_TEXT_BYTES = 4096
"""Longest text that is looked at.  The standard's own limits are far lower, and some of Python's
decoders, which a file may choose by its character set, take time by the square of the length. """


def is_dicom(data: bytes) -> bool:
    """Tell whether the bytes have DICOM's preamble and prefix (PS3.10 section 7.1)."""
    return data[PREAMBLE_BYTES : PREAMBLE_BYTES + len(MAGIC)] == MAGIC


def read_meta(data: bytes) -> tuple[FileMetaDataset, int]:
    """Read the File Meta Information (group 0002), and its end position.

    Raises:
        UnsupportedFormat: it names no transfer syntax.
        CorruptImage: it can't be read.
        TooLarge: it has more elements than are read.
    """
    stream = BoundedReads(data)
    stream.seek(PREAMBLE_BYTES + len(MAGIC))
    try:
        meta = read_dataset(
            stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_group_2
        )
        file_meta = FileMetaDataset(meta)
    except (TooLarge, MemoryError):
        raise
    except Exception as exc:  # pydicom lets struct, key, value and attribute errors through
        raise CorruptImage("The DICOM file's meta information can't be read.") from exc
    if not text(meta, "TransferSyntaxUID"):
        raise UnsupportedFormat("The DICOM file names no transfer syntax.")
    return file_meta, stream.tell()


def transfer_syntax(meta: FileMetaDataset) -> UID:
    """Return the transfer syntax that the file says it has."""
    return UID(text(meta, "TransferSyntaxUID"))


def read_header(
    data: bytes, *, max_inflated_bytes: int, meta: tuple[FileMetaDataset, int] | None = None
) -> Dataset:
    """Read the whole data set, values still raw; a deflated one is inflated up to the limit.

    Args:
        data: the file.
        max_inflated_bytes: limit on a deflated data set.
        meta: what `read_meta` returned, if it was called already.

    Raises:
        UnsupportedFormat: no transfer syntax is named.
        TooLarge: the data set would inflate over the limit, or has more elements than are read.
        CorruptImage: it can't be read to its end.
    """
    file_meta, end = meta or read_meta(data)
    try:
        if transfer_syntax(file_meta) == DeflatedExplicitVRLittleEndian:
            stream = BoundedReads(_inflate(data[end:], max_inflated_bytes))
            dataset = read_dataset(stream, is_implicit_VR=False, is_little_endian=True)
        else:
            dataset = dcmread(BoundedReads(data))
    except (TooLarge, MemoryError):
        raise
    except Exception as exc:  # as above; RecursionError if sequences nest without end
        raise CorruptImage("The DICOM data set can't be read to its end.") from exc
    if not dataset:  # pydicom drops everything if pixels or items of undefined length have no end
        raise CorruptImage("The DICOM data set can't be read to its end.")
    dataset.file_meta = file_meta
    return dataset


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element's first value as plain text, "" if it is absent; never raises."""
    return texts(dataset, keyword)[0]


def texts(dataset: Dataset, keyword: str) -> list[str]:
    r"""Return all values (separated by a backslash) as plain text; [""] if it is absent.

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
        values = raw[:MAX_TEXT_BYTES].decode("latin-1").split("\\")
    else:  # pydicom has converted it already
        values = (
            [str(raw)]
            if isinstance(raw, str) or not isinstance(raw, Iterable)
            else [str(one) for one in raw] or [""]
        )
    return [value.strip(" \0\t\r\n") for value in values]


def words(dataset: Dataset, keyword: str) -> str:
    """Return a text in the file's character set, full-width letters as plain ones.

    Never raises; an absent element is "".
    """
    try:
        raw: Any = dataset.get_item(keyword).value
        if isinstance(raw, bytes):
            raw = decode_bytes(
                raw[:MAX_TEXT_BYTES],
                convert_encodings(texts(dataset, "SpecificCharacterSet")),
                {0x5C},
            )
    except Exception:  # an unknown character set, or bytes that are none of it
        raw = text(dataset, keyword)
    return unicodedata.normalize("NFKC", str(raw or "")).strip(" \0\t\r\n")


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, read within bounds, values still raw; [] if it is absent.

    Raises:
        TooLarge: it has more elements than are read.
        CorruptImage: it can't be read.
    """
    try:
        element: Any = dataset.get_item(keyword) if keyword in dataset else None
        if element is None:
            return []
        if isinstance(element.value, bytes):
            implicit = element.is_implicit_VR or element.VR == "UN"
            stream = BoundedReads(element.value)
            return list(
                read_sequence(
                    stream, implicit, element.is_little_endian, len(element.value), "iso8859"
                )
            )
        return list(element.value or [])
    except (TooLarge, MemoryError):
        raise
    except Exception as exc:
        raise CorruptImage("A sequence of the DICOM header can't be read.") from exc


def whole_number(dataset: Dataset, keyword: str, *, default: int | None = None) -> int:
    """Return an element as a whole number; raises `CorruptImage` if it is none, without quoting
    it.
    """
    if default is not None and not _is_stated(dataset, keyword):
        return default
    try:
        return int(dataset[keyword].value)
    except Exception as exc:  # pydicom converts on access and lets any error through
        raise CorruptImage(f"{keyword} is missing or no whole number.") from exc


def _is_stated(dataset: Dataset, keyword: str) -> bool:
    """Tell whether an element has a value; the bytes of a binary number may look like blanks."""
    if dictionary_VR(keyword) == "IS":
        return bool(text(dataset, keyword))
    element = dataset.get_item(keyword) if keyword in dataset else None
    return getattr(element, "value", None) not in (None, b"", "")


def quiet_pydicom() -> None:
    """Keep pydicom from logging values, which are the patient's, and from failing over the name of
    a character set.
    """
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.logger.disabled = True
    pydicom.charset.python_encoding = _CharacterSets(pydicom.charset.python_encoding)


class _CharacterSets(dict[str, str]):
    """Character sets by DICOM's names (PS3.3 C.12.1.1.2).

    pydicom asks Python about a name that it does not know, and Python refuses to be asked about one
    with a NUL in it.
    """

    def __missing__(self, name: str) -> str:
        if "\0" in name:
            return default_encoding
        raise KeyError(name)


def _after_group_2(tag: Any, _vr: str | None, _length: int) -> bool:
    return bool(tag.group != 2)


def _inflate(deflated: bytes, max_bytes: int) -> bytes:
    """Inflate a raw deflate stream (PS3.5 A.5), never making more than the limit."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, max_bytes)
    if inflater.unconsumed_tail:
        raise TooLarge(f"The deflated DICOM file would inflate to more than {max_bytes} bytes.")
    return inflated
