"""The few facts of a received file that rules and identifiers need.

The service reads the image; this module reads what decides which question is asked. Values come
from their raw bytes, so that an odd one is never quoted by a library's complaint. A pixel is
never read, and a deflated data set is inflated within a bound.
"""

import re
import zlib
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from typing import Any, Literal

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.dataset import Dataset
from pydicom.filereader import dcmread, read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

MAGIC_END = 132
"""Bytes of the preamble and of the letters DICM (PS3.10 7.1)."""

_MAX_INFLATED_BYTES = 64 * 2**20
_MAX_TEXT_BYTES = 256

_PADDING = " \0\t\r\n"

_UID = re.compile(r"[0-9.]{1,64}")
_AGE = re.compile(r"(\d{1,3})([DWMY]?)", re.ASCII)
_DATE = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)", re.ASCII)
_MAX_AGE_YEARS = 130
_YEARS_PER = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}
"""Public data sets leave the unit of years out."""

_LATERAL = frozenset({"LATERAL", "LAT", "LL", "RL", "LLAT", "RLAT", "LARGE LATERAL"})
_VIEW_CODES: dict[str, "View"] = {
    "272479007": "PA", "399348003": "AP", "399067008": "LATERAL",
    "R-10214": "PA", "R-10206": "AP", "R-102CD": "LATERAL",
}  # fmt: skip
"""SNOMED CT and SNOMED RT codes of CID 4010."""

View = Literal["PA", "AP", "LATERAL"]

_KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber",
    "Modality", "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "PatientAge", "PatientSex",
    "PatientBirthDate", "StudyDate", "AcquisitionDate", "Manufacturer", "SeriesNumber",
    "ContributingEquipmentSequence", "SpecificCharacterSet",
)  # fmt: skip


class UnreadableHeader(Exception):
    """The data set can't be read as far as its pixels."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a header states; None or "" if it states nothing."""

    class_uid: str
    sop_uid: str
    study_uid: str
    series_uid: str
    accession: str
    modality: str
    body_part: str
    view: View | None
    age_years: float | None
    sex: str | None
    manufacturer: str
    series_number: str
    contributors: tuple[str, ...]
    """Manufacturers of the equipment that contributed to the image."""


def read_facts(data: bytes) -> Facts:
    """Read the facts of a DICOM file; raises `UnreadableHeader`."""
    try:
        dataset = _read(data)
    except Exception as exc:  # pydicom lets struct, key, value and recursion errors through
        raise UnreadableHeader("the header can't be read") from exc
    sex = _text(dataset, "PatientSex").upper()
    return Facts(
        class_uid=_uid(dataset, "SOPClassUID"),
        sop_uid=_uid(dataset, "SOPInstanceUID"),
        study_uid=_uid(dataset, "StudyInstanceUID"),
        series_uid=_uid(dataset, "SeriesInstanceUID"),
        accession=_accession(dataset),
        modality=_text(dataset, "Modality").upper(),
        body_part=_text(dataset, "BodyPartExamined").upper(),
        view=_view(dataset),
        age_years=_age_years(dataset),
        sex=sex if sex in ("M", "F", "O") else None,
        manufacturer=_text(dataset, "Manufacturer"),
        series_number=_text(dataset, "SeriesNumber"),
        contributors=tuple(
            _text(item, "Manufacturer") for item in _items(dataset, "ContributingEquipmentSequence")
        ),
    )


def find_data_set(data: bytes) -> int:
    """Return where the data set begins, behind the File Meta Information (PS3.10 7.1).

    Raises:
        UnreadableHeader: there is no preamble, or the meta information has no end.
    """
    if data[MAGIC_END - 4 : MAGIC_END] != b"DICM":
        raise UnreadableHeader("no DICOM file")
    stream = BytesIO(data)
    stream.seek(MAGIC_END)
    try:
        read_dataset(stream, False, True, stop_when=_is_behind_meta)
    except Exception as exc:
        raise UnreadableHeader("the meta information can't be read") from exc
    return stream.tell()


def read_meta(data: bytes) -> tuple[str, str, str]:
    """Return SOP class, SOP instance and transfer syntax as the meta information states them.

    Raises:
        UnreadableHeader: as `find_data_set`.
    """
    meta = read_dataset(BytesIO(data[MAGIC_END : find_data_set(data)]), False, True)
    return (
        _uid(meta, "MediaStorageSOPClassUID"),
        _uid(meta, "MediaStorageSOPInstanceUID"),
        _uid(meta, "TransferSyntaxUID"),
    )


def _read(data: bytes) -> Dataset:
    start = find_data_set(data)
    _, _, syntax = read_meta(data)
    if syntax != DeflatedExplicitVRLittleEndian:
        return dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=list(_KEYWORDS))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = BytesIO(inflater.decompress(data[start:], _MAX_INFLATED_BYTES))
    return read_dataset(inflated, False, True, stop_when=_is_pixel_data)


def _is_behind_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >> 16 != 0x0002


def _is_pixel_data(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >= 0x7FE00008


def _text(dataset: Dataset, keyword: str) -> str:
    """Return an element's first value as text, "" if it is absent; never raises."""
    value = _raw_value(dataset, keyword)
    if isinstance(value, bytes):
        value = value[:_MAX_TEXT_BYTES].decode("latin-1")
    first = "" if value is None else str(value).split("\\", 1)[0]
    return first.strip(_PADDING)


def _accession(dataset: Dataset) -> str:
    """Read the number in its own letters: the site hashes what it reads, to find an answer.

    It is decoded before it is divided: a backslash may be half of a letter (PS3.5 6.1.2.3).
    """
    raw = _raw_value(dataset, "AccessionNumber")
    if not isinstance(raw, bytes):
        return _text(dataset, "AccessionNumber")
    raw = raw[:_MAX_TEXT_BYTES]
    stated = _raw_value(dataset, "SpecificCharacterSet") or ""
    if isinstance(stated, bytes):
        stated = stated.decode("latin-1")
    names = stated.split("\\") if isinstance(stated, str) else list(map(str, stated))
    stripped = [name.strip(_PADDING) for name in names]
    known = convert_encodings([name if name in python_encoding else "" for name in stripped])
    try:
        text = decode_bytes(raw, known, set())
    except (LookupError, ValueError):  # of the lists of names that the standard does not know
        text = raw.decode("latin-1")
    return text.split("\\", 1)[0].strip(_PADDING)


def _raw_value(dataset: Dataset, keyword: str) -> Any:
    """Return an element's value as it was read, None if it is absent; never raises."""
    try:
        return getattr(dataset.get_item(keyword), "value", None)
    except Exception:
        return None


def _uid(dataset: Dataset, keyword: str) -> str:
    value = _text(dataset, keyword)
    return value if _UID.fullmatch(value) else ""


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    try:
        return list(dataset[keyword].value or []) if keyword in dataset else []
    except Exception:
        return []


def _view(dataset: Dataset) -> View | None:
    """Read the view from ViewPosition, or else from ViewCodeSequence."""
    stated = _text(dataset, "ViewPosition").upper()
    if stated == "PA":
        return "PA"
    if stated == "AP":
        return "AP"
    if stated in _LATERAL:
        return "LATERAL"
    codes = [_text(item, "CodeValue") for item in _items(dataset, "ViewCodeSequence")]
    return next((_VIEW_CODES[code] for code in codes if code in _VIEW_CODES), None)


def _age_years(dataset: Dataset) -> float | None:
    """Return the stated age, or else the years from birth to study: many rooms state no age."""
    match = _AGE.fullmatch(_text(dataset, "PatientAge").upper())
    if match:
        return int(match[1]) * _YEARS_PER[match[2]]
    born = _date(_text(dataset, "PatientBirthDate"))
    studied = _date(_text(dataset, "StudyDate")) or _date(_text(dataset, "AcquisitionDate"))
    if born is None or studied is None:
        return None
    years = (studied - born).days * _YEARS_PER["D"]
    return years if 0 <= years <= _MAX_AGE_YEARS else None


def _date(value: str) -> date | None:
    """Read a date of VR DA, or of ACR-NEMA with its dots."""
    match = _DATE.fullmatch(value)
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None
