"""What a result takes over from the header of the file that it is about.

Real headers lack attributes that a result must have, and carry values that would
make it invalid (ages without a unit).  Both are put right on a copy: what is
missing is there and empty, what can't be valid is left out, and nothing is invented.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from cxr.dicom.header import MAX_TEXT_BYTES, read_header, text, texts
from cxr.dicom.metadata import MAX_AGE_YEARS, SEXES, parse_age
from cxr.dicom.orientation import stated_orientation
from cxr.errors import CorruptImage

_UID = re.compile(r"[0-9.]{1,64}")
_DATE = re.compile(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_AGE = re.compile(r"\d{3}[DWMY]")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """The image that a result refers to, and whose it is.

    `identity` has the patient's and the study's attributes, all valid, all of type 2
    present; it goes into the result and nowhere else.
    """

    class_uid: str
    instance_uid: str
    series_uid: str
    study_uid: str
    instance_number: int
    is_lossy: bool
    orientation: tuple[str, ...]
    """PatientOrientation of rows and columns as results show them; empty if none is stated."""
    laterality: str
    identity: Dataset

    def as_evidence(self) -> Dataset:
        """Return a data set that names the image, without its patient."""
        evidence = Dataset()
        evidence.SOPClassUID, evidence.SOPInstanceUID = self.class_uid, self.instance_uid
        evidence.StudyInstanceUID, evidence.SeriesInstanceUID = self.study_uid, self.series_uid
        for keyword in _TYPE_2:
            setattr(evidence, keyword, "")
        return evidence


def read_source(data: bytes, *, max_inflated_bytes: int) -> SourceImage:
    """Read what a result needs of a DICOM file's header; raise `CorruptImage` if it can't be
    referred to.
    """
    header = read_header(data, max_inflated_bytes=max_inflated_bytes)
    class_uid, instance_uid, series_uid, study_uid = (_uid(header, keyword) for keyword in _UIDS)
    number, lossy = text(header, "InstanceNumber"), text(header, "LossyImageCompression")
    laterality = text(header, "Laterality").upper()
    return SourceImage(
        class_uid=class_uid,
        instance_uid=instance_uid,
        series_uid=series_uid,
        study_uid=study_uid,
        instance_number=int(number) if re.fullmatch(r"[1-9]\d{0,8}", number) else 1,
        is_lossy=lossy == "01",
        orientation=_orientation(header),
        laterality=laterality if laterality in ("L", "R") else "",
        identity=_identity(header),
    )


def _orientation(header: Dataset) -> tuple[str, ...]:
    """Return the directions of the image's rows and columns after it was brought upright."""
    done, _ = stated_orientation(header)
    if done != "as_stored":
        return ("L", "F")
    stated = tuple(texts(header, "PatientOrientation"))
    return stated if all(re.fullmatch("[APRLHF]{1,3}", letters) for letters in stated) else ()


def _uid(header: Dataset, keyword: str) -> str:
    uid = text(header, keyword)
    if not _UID.fullmatch(uid):
        raise CorruptImage(
            "The header does not name the study, series and instance that a DICOM result must "
            "refer to."
        )
    return uid


def _identity(header: Dataset) -> Dataset:
    identity = Dataset()
    for keyword in (*_TYPE_2, *_OPTIONAL):
        value = _REPAIRS[keyword](header, keyword)
        if value or keyword in _TYPE_2:
            # pydicom's own check of values would be said aloud, and quote them
            identity.add(
                DataElement(_tag(keyword), dictionary_VR(keyword), value, validation_mode=IGNORE)
            )
    return identity


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


def _plain(header: Dataset, keyword: str) -> str:
    """Return a text in the file's own character set, whatever it says: an identity is never
    shortened.
    """
    stored = getattr(header.get_item(keyword), "value", None) if keyword in header else None
    if isinstance(stored, bytes) and len(stored) > MAX_TEXT_BYTES:
        raise CorruptImage("The header's texts are longer than any that can be carried over.")
    try:
        value = header[keyword].value if keyword in header else ""
    except Exception as exc:  # its bytes are none of its character set's
        raise CorruptImage(
            "The header's texts can't be read in the character set that it states."
        ) from exc
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "")


def _name(header: Dataset, keyword: str) -> PersonName:
    return PersonName(_plain(header, keyword))


def _matching(pattern: re.Pattern[str]) -> Callable[[Dataset, str], str]:
    """Keep a value that has the form of its type, else leave it empty."""

    def keep(header: Dataset, keyword: str) -> str:
        value = text(header, keyword)
        return value if pattern.fullmatch(value) else ""

    return keep


def _sex(header: Dataset, keyword: str) -> str:
    return SEXES.get(text(header, keyword).upper(), "")


def _age(header: Dataset, keyword: str) -> str:
    """Return an age its unit, which public data sets leave out; drop what is no age."""
    value = text(header, keyword).upper()
    years, unit_assumed = parse_age(value)
    if years is None or years > MAX_AGE_YEARS:
        return ""
    return f"{round(years):03d}Y" if unit_assumed or not _AGE.fullmatch(value) else value


_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")

_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of type 2: present, even if they are empty (PS3.3 C.7.1.1 and C.7.2.1)."""

_OPTIONAL = ("PatientAge", "IssuerOfPatientID", "StudyDescription")

_REPAIRS: dict[str, Callable[[Dataset, str], Any]] = {
    "PatientName": _name, "PatientID": _plain, "PatientBirthDate": _matching(_DATE),
    "PatientSex": _sex,
    "StudyDate": _matching(_DATE), "StudyTime": _matching(_TIME), "StudyID": _plain,
    "AccessionNumber": _plain,
    "ReferringPhysicianName": _name, "PatientAge": _age, "IssuerOfPatientID": _plain,
    "StudyDescription": _plain,
}  # fmt: skip
