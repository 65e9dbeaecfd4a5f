"""Read the service's structured report: what goes into the results table is what is delivered.

The report is a Comprehensive 3D SR by TID 1500 (PS3.16); one group holds the answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

_CERTAINTY = ("111012", "DCM")
_THRESHOLD = ("threshold", "99CXRSERVE")
_PRESENCE = ("705057003", "SCT")
_PRESENT = "52101004"
_TRACKING_IDENTIFIER = ("112039", "DCM")
_ALGORITHM_VERSION = ("111003", "DCM")
_ALGORITHM_PARAMETERS = ("111002", "DCM")
_COMMENT = ("121106", "DCM")


class UnreadableAnswer(Exception):
    """The service's report lacks what it promises."""


@dataclass(frozen=True, slots=True)
class ResultObject:
    """A DICOM object of the service, and the identifiers under which an archive files it."""

    content: bytes
    class_uid: str
    sop_uid: str
    series_uid: str
    study_uid: str
    model_sha256: str

    @classmethod
    def read(cls, content: bytes) -> "ResultObject":
        """Read the identifiers of an object; raises `UnreadableAnswer`."""
        dataset = _read(content)
        try:
            return cls(
                content=content,
                class_uid=str(dataset.SOPClassUID),
                sop_uid=str(dataset.SOPInstanceUID),
                series_uid=str(dataset.SeriesInstanceUID),
                study_uid=str(dataset.StudyInstanceUID),
                model_sha256=str(dataset.DeviceSerialNumber),
            )
        except AttributeError as exc:
            raise UnreadableAnswer("the object lacks an identifier") from exc


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """What a report says; probabilities from 0 to 1."""

    finding: str
    probability: float
    threshold: float
    is_positive: bool
    model: str
    version: str
    model_sha256: str
    operating_point: str
    warnings: tuple[str, ...]


def read_report(content: bytes) -> ServiceAnswer:
    """Read the answer out of a report; raises `UnreadableAnswer`."""
    dataset = _read(content)
    try:
        items = list(_items(dataset))
        parameters = dict(
            text.split("=", 1) for text in _texts(items, _ALGORITHM_PARAMETERS) if "=" in text
        )
        presence = next(item for item in items if _concept(item) == _PRESENCE)
        return ServiceAnswer(
            finding=_texts(items, _TRACKING_IDENTIFIER)[0],
            probability=_percent(items, _CERTAINTY) / 100,
            threshold=_percent(items, _THRESHOLD) / 100,
            is_positive=presence.ConceptCodeSequence[0].CodeValue == _PRESENT,
            model=str(dataset.ManufacturerModelName),
            version=_texts(items, _ALGORITHM_VERSION)[0],
            model_sha256=parameters["sha256"],
            operating_point=parameters["operating_point"],
            warnings=tuple(_warnings(_texts(items, _COMMENT))),
        )
    except (AttributeError, KeyError, IndexError, StopIteration, ValueError) as exc:
        raise UnreadableAnswer("the report lacks a part of the answer") from exc


def _read(content: bytes) -> Dataset:
    try:
        return dcmread(BytesIO(content))
    except Exception as exc:  # pydicom lets errors of many kinds through
        raise UnreadableAnswer("the service's object is no DICOM file") from exc


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Walk the tree of content."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from _items(item)


def _concept(item: Dataset) -> tuple[str, str] | None:
    names = item.get("ConceptNameCodeSequence")
    return (names[0].CodeValue, names[0].CodingSchemeDesignator) if names else None


def _texts(items: list[Dataset], concept: tuple[str, str]) -> list[str]:
    return [str(item.TextValue) for item in items if _concept(item) == concept]


def _percent(items: list[Dataset], concept: tuple[str, str]) -> float:
    item = next(item for item in items if _concept(item) == concept)
    value: Any = item.MeasuredValueSequence[0].FloatingPointValue
    return float(value)


def _warnings(comments: list[str]) -> Iterator[str]:
    """Take the code before the colon; the caveat has none."""
    for comment in comments:
        code, colon, _ = comment.partition(": ")
        if colon and code.replace("_", "").isalpha() and code.islower():
            yield code
