"""A decoded radiograph and the facts that came with it.

Shape suffixes: `pixels_HW` has H rows and W columns.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxr.orientation import Orientation
from cxr.warning_codes import ImageWarning

Sex = Literal["M", "F", "O"]
View = Literal["PA", "AP", "LATERAL"]
Format = Literal["dicom", "png", "jpeg"]
Intensity = Literal["identity", "window", "lut", "percentile"]


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
