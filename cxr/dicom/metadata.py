"""Age, sex and view position as a DICOM header states them; what it does not state stays None."""

import re
from collections.abc import Iterator
from datetime import date

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset

from cxr.dicom.header import element, items, text, texts
from cxr.dicom.orientation import shows_the_side
from cxr.dicom.terms import folded, views_named
from cxr.dicom.values import possible_words
from cxr.errors import CorruptImage
from cxr.radiograph import Metadata, MetadataSource, Sex, View
from cxr.warning_codes import ImageWarning, WarningCode

DAYS_A_YEAR = 365.25
UNITS_A_YEAR = {"Y": 1.0, "M": 12.0, "W": DAYS_A_YEAR / 7, "D": DAYS_A_YEAR}
"""Age String units (PS3.5 table 6.2-1, AS)."""

MAX_AGE_YEARS = 120.0

SEXES: dict[str, Sex] = {"M": "M", "F": "F", "O": "O"}

VIEW_CODES: dict[str, View] = {
    "272479007": "PA", "R-10214": "PA", "399348003": "AP", "R-10206": "AP",
    "399067008": "LATERAL", "399173006": "LATERAL", "399198007": "LATERAL", "R-10236": "LATERAL",
    "R-10232": "LATERAL",
}  # fmt: skip
"""View codes of SNOMED CT, and the older SNOMED-RT identifiers (PS3.16 CID 4010)."""

VIEW_TEXTS = (
    "AcquisitionDeviceProcessingDescription",
    "SeriesDescription",
    "ProtocolName",
)
"""Texts about one image or its series; those about a study often name several views."""


def read_metadata(dataset: Dataset) -> tuple[Metadata, tuple[ImageWarning, ...]]:
    """Read the patient's age, sex and the view position, each with the keyword that it came
    from.
    """
    age_years, age_source, age_warnings = _age(dataset)
    sex, sex_warnings = _sex(dataset)
    view, view_source = _view(dataset)
    source = MetadataSource(age_source, "PatientSex" if sex else None, view_source)
    return Metadata(age_years, sex, view, source), (
        *age_warnings,
        *sex_warnings,
        *_character_set_warnings(dataset),
    )


def parse_age(value: str) -> tuple[float | None, bool]:
    """Read an age ("058Y", "006M", "62") in years, and whether its unit had to be assumed.

    A number without a unit counts years, as the public chest data sets write it.
    """
    match = re.fullmatch(r"(\d{1,3}) ?([YMWD]?)", value.upper(), re.ASCII)
    if match is None:
        return None, False
    number, unit = match.groups()
    return int(number) / UNITS_A_YEAR[unit or "Y"], not unit


def _age(dataset: Dataset) -> tuple[float | None, str | None, list[ImageWarning]]:
    stated = text(dataset, "PatientAge")
    if not stated:
        return _age_at_study(dataset)
    age_years, unit_assumed = parse_age(stated)
    if age_years is None or age_years > MAX_AGE_YEARS:
        return None, None, [_IMPLAUSIBLE]
    assumed = [
        ImageWarning(
            WarningCode.AGE_UNIT_ASSUMED, "The file's age has no unit; it was read as years."
        )
    ]
    return age_years, "PatientAge", assumed if unit_assumed else []


_IMPLAUSIBLE = ImageWarning(
    WarningCode.AGE_IMPLAUSIBLE, "The file's age can't be a patient's; it was left out."
)


def _age_at_study(dataset: Dataset) -> tuple[float | None, str | None, list[ImageWarning]]:
    """Return the years between birth and study, if both dates are stated."""
    born = _date(text(dataset, "PatientBirthDate"))
    studied = _date(text(dataset, "StudyDate")) or _date(text(dataset, "AcquisitionDate"))
    if born is None or studied is None:
        return None, None, []
    years = (studied - born).days / DAYS_A_YEAR
    return (
        (years, "PatientBirthDate", [])
        if 0 <= years <= MAX_AGE_YEARS
        else (None, None, [_IMPLAUSIBLE])
    )


def _date(value: str) -> date | None:
    digits = (
        value.replace(".", "") if re.fullmatch(r"\d{4}\.\d\d\.\d\d", value, re.ASCII) else value
    )  # ACR-NEMA's form
    try:
        is_date = re.fullmatch(r"\d{8}", digits, re.ASCII)
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) if is_date else None
    except ValueError:
        return None


def _sex(dataset: Dataset) -> tuple[Sex | None, list[ImageWarning]]:
    stated = text(dataset, "PatientSex").upper()
    sex = SEXES.get(stated)
    if stated and sex is None:
        return None, [
            ImageWarning(
                WarningCode.SEX_UNREADABLE, "The file's sex is none of M, F and O; it was left out."
            )
        ]
    return sex, []


def _view(dataset: Dataset) -> tuple[View | None, str | None]:
    """Try ViewPosition, ViewCodeSequence, PatientOrientation, then texts, in that order."""
    return next(
        ((view, source) for view, source in _views(dataset) if view is not None), (None, None)
    )


def _views(dataset: Dataset) -> Iterator[tuple[View | None, str]]:
    yield _view_in_words(dataset, "ViewPosition"), "ViewPosition"
    yield VIEW_CODES.get(_view_code(dataset)), "ViewCodeSequence"
    # Rows that run towards the front or the back mean that the patient stands sideways (PS3.3
    # C.7.6.1.1.1).
    yield "LATERAL" if shows_the_side(dataset) else None, "PatientOrientation"
    for keyword in VIEW_TEXTS:
        yield _view_in_words(dataset, keyword), keyword


def _view_code(dataset: Dataset) -> str:
    try:
        return next((text(item, "CodeValue") for item in items(dataset, "ViewCodeSequence")), "")
    except CorruptImage:  # no evidence either way
        return ""


def _view_in_words(dataset: Dataset, keyword: str) -> View | None:
    """Find one view in a text ("AP SEMI-ERECT", "view: PA").

    "PA and lateral" names two and proves none. A frontal view may be PA or AP.
    """
    if element(dataset, keyword) is None:
        return None
    for stated in possible_words(dataset, keyword):
        found = views_named(folded(stated))
        single = _SINGLE_VIEWS.get(frozenset(found))
        if found:
            return single
    return None


_SINGLE_VIEWS: dict[frozenset[str], View] = {
    frozenset({"LATERAL"}): "LATERAL",
    frozenset({"PA"}): "PA",
    frozenset({"AP"}): "AP",
    frozenset({"PA", "FRONTAL"}): "PA",
    frozenset({"AP", "FRONTAL"}): "AP",
}


def _character_set_warnings(dataset: Dataset) -> Iterator[ImageWarning]:
    if not python_encoding.keys() >= {*texts(dataset, "SpecificCharacterSet")}:
        detail = (
            "The header's character set is unknown or misspelt; its texts were read as well "
            "as could be."
        )
        yield ImageWarning(WarningCode.HEADER_REPAIRED, detail)
