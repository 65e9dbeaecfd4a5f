"""A decoded radiograph and the facts that came with it.

Shape suffixes: `pixels_HW` has H rows and W columns.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxr.orientation import Orientation

Sex = Literal["M", "F", "O"]
View = Literal["PA", "AP", "LATERAL"]
Format = Literal["dicom", "png", "jpeg"]
Intensity = Literal["identity", "window", "lut", "percentile"]


class WarningCode(StrEnum):
    """The closed list of what an answer may warn of."""

    AGE_MISSING = "age_missing"
    AGE_IMPLAUSIBLE = "age_implausible"
    AGE_UNIT_ASSUMED = "age_unit_assumed"
    SEX_UNREADABLE = "sex_unreadable"
    VIEW_MISSING = "view_missing"
    OUTSIDE_AGE_SCOPE = "outside_age_scope"
    OUTSIDE_SEX_SCOPE = "outside_sex_scope"
    OUTSIDE_VIEW_SCOPE = "outside_view_scope"
    MODALITY_UNUSUAL = "modality_unusual"
    BODY_PART_UNSTATED = "body_part_unstated"
    NOT_A_CHEST = "not_a_chest"
    NOT_FRONTAL = "not_frontal"
    INTENSITY_GUESSED = "intensity_guessed"
    POLARITY_CONTRADICTION = "polarity_contradiction"
    COLOR_INPUT = "color_input"
    ASPECT_UNUSUAL = "aspect_unusual"
    LOW_RESOLUTION = "low_resolution"
    FEW_GREYS = "few_greys"
    LOOKS_INVERTED = "looks_inverted"
    LOOKS_UNLIKE_A_CHEST = "looks_unlike_a_chest"
    NOVEL_INPUT = "novel_input"
    HEADER_REPAIRED = "header_repaired"
    REORIENTED = "reoriented"
    ORIENTATION_CONTRADICTION = "orientation_contradiction"
    LOOKS_DAMAGED = "looks_damaged"
    LOOKS_SHEARED = "looks_sheared"


@dataclass(frozen=True, slots=True)
class ImageWarning:
    """One thing about an image that weakens its answer: a code and a sentence for people."""

    code: WarningCode
    detail: str


LOOKS_DAMAGED = ImageWarning(
    WarningCode.LOOKS_DAMAGED,
    "A part of the image changes its brightness as a whole, as behind a damaged place of a scan.",
)


@dataclass(frozen=True, slots=True)
class MetadataSource:
    """Where each fact came from: a DICOM keyword, "request", or None if the fact is None."""

    age_years: str | None = None
    sex: str | None = None
    view_position: str | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the file states of the patient and the exposure; None if it states nothing.

    `age_years` is in years, also for infants (six months is 0.5).
    """

    age_years: float | None = None
    sex: Sex | None = None
    view_position: View | None = None
    source: MetadataSource = field(default_factory=MetadataSource)


@dataclass(frozen=True, slots=True)
class Processing:
    """What decoding found and did: size (after a turn), polarity, grey mapping, orientation."""

    format: Format
    rows: int
    columns: int
    transfer_syntax: str | None = None
    inverted: bool = False
    intensity: Intensity = "identity"
    orientation: Orientation = "as_stored"


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One radiograph, upright, in MONOCHROME2 sense, without the patient's identity.

    `pixels_HW` is uint8, 0 black to 255 white: `processing.rows` x
    `processing.columns`, each divided by `reduction` (rounded up). `reduction` is over 1 if
    the decoder averaged pixels.
    """

    pixels_HW: NDArray[np.uint8]
    metadata: Metadata
    processing: Processing
    warnings: tuple[ImageWarning, ...] = ()
    reduction: int = 1
