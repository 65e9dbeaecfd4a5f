"""The warnings that an answer may carry: the closed list of codes, and a code with its sentence."""

from dataclasses import dataclass
from enum import StrEnum


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
