"""Read a DICOM file's data set within bounds, and its values without trusting them.

Values are taken from their raw bytes: real files carry values that break their
own type (ages without a unit), and pydicom's complaints would quote them.
"""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_partial, read_sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from cxr.bounded_reads import MAX_PART_READS, BoundedReads, ThreadReads, inflate
from cxr.dicom.one_pass_reader import scan, scan_meta, shared_tag
from cxr.dicom.open_ended import BehindPixels, read_open_ended
from cxr.errors import CorruptImage, TooLarge, UnsupportedFormat

PREAMBLE_BYTES = 128
MAGIC = b"DICM"

_META_START = PREAMBLE_BYTES + len(MAGIC)
_STANDARD = "1.2.840.10008.1.2"
_NOT_SCANNED = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_US_BYTES = 2
_ESCAPE = b"\x1b"
_CHARACTER_SET = shared_tag(0x00080005)
_PLAIN_CHARACTER_SETS = ("", "ISO_IR 6", "ISO_IR 100", "ISO_IR 192")
"""Character sets (PS3.3 C.12.1.1.2) without code extensions: of all files that were seen, most."""

MAX_TEXT_BYTES = 4096
"""Longest text that is looked at.  The standard's own limits are far lower, and some of Python's
decoders, which a file may choose by its character set, take time by the square of the length. """

MAX_NUMBER_BYTES = 64
"""Longest value that is read as one number. pydicom would make an object of each number in a list,
and a few megabytes of them take it half a minute."""


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
    try:
        file_meta, end = _scan_meta(data) or _parse_meta(data)
    except (TooLarge, MemoryError):
        raise
    except Exception as exc:  # pydicom lets struct, key, value and attribute errors through
        raise CorruptImage("The DICOM file's meta information can't be read.") from exc
    if not text(file_meta, "TransferSyntaxUID"):
        raise UnsupportedFormat("The DICOM file names no transfer syntax.")
    return file_meta, end


def _scan_meta(data: bytes) -> tuple[FileMetaDataset, int] | None:
    found = scan_meta(data, _META_START)
    if found is None:
        return None
    elements, end = found
    meta = FileMetaDataset(elements)
    meta.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    return meta, end


def _parse_meta(data: bytes) -> tuple[FileMetaDataset, int]:
    """Read the File Meta Information by pydicom, whatever it is like."""
    stream = BoundedReads(data, MAX_PART_READS)
    stream.seek(_META_START)
    meta = read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_group_2
    )
    return FileMetaDataset(meta), stream.tell()


def transfer_syntax(meta: FileMetaDataset) -> UID:
    """Return the transfer syntax that the file says it has."""
    return _uid(text(meta, "TransferSyntaxUID"))


@lru_cache(maxsize=64)
def _uid(value: str) -> UID:
    """Return a UID; pydicom checks each one anew."""
    return UID(value)


def read_header(
    data: bytes,
    *,
    max_inflated_bytes: int,
    meta: tuple[FileMetaDataset, int] | None = None,
    in_thread: bool = False,
) -> Dataset:
    """Read the whole data set, values still raw; a deflated one is inflated up to the limit.

    Args:
        data: the file.
        max_inflated_bytes: limit on a deflated data set.
        meta: what `read_meta` returned, if it was called already.
        in_thread: whether the caller can't be stopped.

    Raises:
        UnsupportedFormat: no transfer syntax is named.
        TooLarge: the data set would inflate over the limit, or has more elements than are read.
        CorruptImage: it can't be read to its end.
        NeedsWorker: it is read `in_thread` and may take long.
    """
    file_meta, end = meta or read_meta(data)
    scanned = _scan_header(data, end, transfer_syntax(file_meta))
    if scanned is not None:
        scanned.file_meta = file_meta
        return scanned
    stream = ThreadReads(data) if in_thread else BoundedReads(data)
    try:
        if transfer_syntax(file_meta) == DeflatedExplicitVRLittleEndian:
            stream = BoundedReads(inflate(data[end:], max_inflated_bytes))
            dataset = read_dataset(
                stream, is_implicit_VR=False, is_little_endian=True, stop_when=BehindPixels()
            )
        else:
            dataset = read_partial(stream, stop_when=BehindPixels())
    except (TooLarge, MemoryError):
        raise
    except Exception as exc:  # as above; RecursionError if sequences nest without end
        stream.check()  # pydicom may hide why it could not read on
        raise CorruptImage("The DICOM data set can't be read to its end.") from exc
    if not dataset:  # pydicom drops everything if pixels or items of undefined length have no end
        dataset = read_open_ended(data)
    dataset.file_meta = file_meta
    return dataset


def _scan_header(data: bytes, start: int, syntax: UID) -> Dataset | None:
    """Read a well-formed data set of plain text in one pass; None leaves it to pydicom."""
    if not syntax.startswith(_STANDARD) or syntax in _NOT_SCANNED:
        return None
    elements = scan(data, start)
    if elements is None:
        return None
    character_sets = elements.get(_CHARACTER_SET)
    value = b"" if character_sets is None else character_sets.value or b""
    name = value.decode("latin-1").strip(" \0")
    if name not in _PLAIN_CHARACTER_SETS:
        return None
    dataset = Dataset(elements)
    dataset.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=convert_encodings(name)
    )
    return dataset


def element(dataset: Dataset, keyword: str) -> Any:
    """Return an element as it was read, its value maybe raw; None if it is absent.

    Each of pydicom's own look-ups makes a tag anew, which takes ten times as long.
    """
    return dataset._dict.get(_tag(keyword))  # noqa: SLF001


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element's first value as plain text, "" if it is absent; never raises."""
    return texts(dataset, keyword)[0]


def texts(dataset: Dataset, keyword: str) -> list[str]:
    r"""Return all values (separated by a backslash) as plain text; [""] if it is absent.

    Only bytes of ASCII's range mean anything to us, so the character set does not matter.
    """
    raw = getattr(element(dataset, keyword), "value", None)
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
        raw: Any = element(dataset, keyword).value
        if isinstance(raw, bytes) and _is_plain(raw, dataset):
            return raw[:MAX_TEXT_BYTES].decode("ascii").strip(" \0\t\r\n")
        if isinstance(raw, bytes):
            raw = decode_bytes(
                raw[:MAX_TEXT_BYTES],
                convert_encodings(texts(dataset, "SpecificCharacterSet")),
                {0x5C},
            )
    except Exception:  # an unknown character set, or bytes that are none of it
        raw = text(dataset, keyword)
    return unicodedata.normalize("NFKC", str(raw or "")).strip(" \0\t\r\n")


def _is_plain(raw: bytes, dataset: Dataset) -> bool:
    """Tell whether a text's bytes are ASCII's letters in the file's character set."""
    if not raw.isascii() or _ESCAPE in raw:
        return False
    character_sets = texts(dataset, "SpecificCharacterSet")
    return len(character_sets) == 1 and character_sets[0] in _PLAIN_CHARACTER_SETS


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, read within bounds, values still raw; [] if it is absent.

    Raises:
        TooLarge: it has more elements than are read.
        CorruptImage: it can't be read.
    """
    stored = element(dataset, keyword)
    value = getattr(stored, "value", None) or b""
    stream = BoundedReads(value if isinstance(value, bytes) else b"", MAX_PART_READS)
    try:
        if not value or not isinstance(value, bytes):
            return list(value)
        implicit = stored.is_implicit_VR or stored.VR == "UN"
        return list(read_sequence(stream, implicit, stored.is_little_endian, len(value), "iso8859"))
    except (TooLarge, MemoryError):
        raise
    except Exception as exc:
        stream.check()
        raise CorruptImage("A sequence of the DICOM header can't be read.") from exc


def whole_number(dataset: Dataset, keyword: str, *, default: int | None = None) -> int:
    """Return an element as a whole number; raises `CorruptImage` if it is none, without quoting
    it.
    """
    if default is not None and not is_stated(dataset, keyword):
        return default
    try:
        raw = element(dataset, keyword)
        if isinstance(raw, RawDataElement) and raw.value is not None:
            if len(raw.value) > MAX_NUMBER_BYTES:
                raise ValueError(keyword)
            if raw.VR == "US" and raw.is_little_endian and len(raw.value) == _US_BYTES:
                return int.from_bytes(raw.value, "little")
        return int(dataset[_tag(keyword)].value)
    except Exception as exc:  # pydicom converts on access and lets any error through
        raise CorruptImage(f"{keyword} is missing or no whole number.") from exc


def is_stated(dataset: Dataset, keyword: str) -> bool:
    """Tell whether an element has a value; the bytes of a binary number may look like blanks."""
    if _is_integer_string(keyword):
        return bool(text(dataset, keyword))
    return getattr(element(dataset, keyword), "value", None) not in (None, b"", "")


@lru_cache(maxsize=512)
def _is_integer_string(keyword: str) -> bool:
    return dictionary_VR(keyword) == "IS"


@lru_cache(maxsize=512)
def _tag(keyword: str) -> BaseTag:
    """Return the tag of a keyword: pydicom looks it up anew for each access."""
    return shared_tag(Tag(keyword))


def _after_group_2(tag: Any, _vr: str | None, _length: int) -> bool:
    return bool(tag.group != 2)
