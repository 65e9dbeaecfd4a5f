"""How a frontal radiograph lies, as the header states it (PS3.3 C.7.6.1.1.1 and C.8.11.4)."""

import re
from collections.abc import Iterator

from pydicom.dataset import Dataset

from cxr.dicom.header import text, texts
from cxr.orientation import ORIENTATIONS, Orientation
from cxr.warning_codes import ImageWarning, WarningCode

_AXES = {"L": "side", "R": "side", "H": "height", "F": "height", "A": "depth", "P": "depth"}

_UPRIGHT_FROM: dict[tuple[str, str], Orientation] = dict(
    zip(
        (("L", "F"), ("R", "F"), ("R", "H"), ("L", "H"),
         ("F", "L"), ("F", "R"), ("H", "R"), ("H", "L")),
        ORIENTATIONS,
        strict=True,
    )
)  # fmt: skip
"""What brings the patient's left to the right of the image, and the head to its top."""

_CONTRADICTION = ImageWarning(
    WarningCode.ORIENTATION_CONTRADICTION,
    "The header contradicts itself on how the image is turned or mirrored.",
)


def orientation_directions(dataset: Dataset) -> tuple[str, str]:
    """Return the letter of the main direction of rows, and of columns; "" if it is not stated.

    Further letters of a value name smaller components. Some stations write a slash or a comma
    instead of the backslash.
    """
    stated = re.split(r"[\\/,; ]+", "\\".join(texts(dataset, "PatientOrientation")).upper().strip())
    letters = [value[:1] for value in [*stated, "", ""][:2]]
    return letters[0], letters[1]


def shows_the_side(dataset: Dataset) -> bool:
    """Tell whether the image runs from front to back, so that the patient is seen from the side."""
    return any(_AXES.get(letter) == "depth" for letter in orientation_directions(dataset))


def stated_orientation(dataset: Dataset) -> tuple[Orientation, tuple[ImageWarning, ...]]:
    """Return what makes the image upright, and the warnings about it."""
    rows, columns = orientation_directions(dataset)
    if shows_the_side(dataset):
        return "as_stored", ()
    if rows not in _AXES and columns not in _AXES:
        return "as_stored", tuple(_unstated(dataset, is_empty=not rows and not columns))
    rows, columns = _completed(rows, columns)
    found = _UPRIGHT_FROM.get((rows, columns))
    if found is None:
        return "as_stored", (_CONTRADICTION,)
    return found, tuple(_warnings(dataset, found))


def _completed(rows: str, columns: str) -> tuple[str, str]:
    """Take the usual direction if one of the two is missing or unknown."""
    if columns not in _AXES:
        columns = "F" if _AXES[rows] == "side" else "L"
    if rows not in _AXES:
        rows = "L" if _AXES[columns] == "height" else "F"
    return rows, columns


def _warnings(dataset: Dataset, found: Orientation) -> Iterator[ImageWarning]:
    if found != "as_stored":
        yield ImageWarning(
            WarningCode.REORIENTED,
            "The header says that the image is turned or mirrored; it was brought upright.",
        )
    if _is_one_sided(dataset) or (found != "as_stored" and _was_turned(dataset)):
        yield _CONTRADICTION


def _unstated(dataset: Dataset, *, is_empty: bool) -> Iterator[ImageWarning]:
    """Warn if the header tells of a turn or a side, and not how the patient lies."""
    if not is_empty or _was_turned(dataset) or _is_one_sided(dataset):
        yield _CONTRADICTION


def _was_turned(dataset: Dataset) -> bool:
    """Tell whether the station turned or mirrored what the detector saw (PS3.3 C.8.11.3)."""
    return text(dataset, "FieldOfViewHorizontalFlip").upper() == "YES" or text(
        dataset, "FieldOfViewRotation"
    ).rstrip("0.") not in ("", "-")


def _is_one_sided(dataset: Dataset) -> bool:
    """Tell whether the header says that the image shows one side; a frontal chest shows both."""
    return text(dataset, "ImageLaterality").upper() in ("L", "R")
