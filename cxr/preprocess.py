"""From a radiograph to the tensor that a model reads.

Resizing is the same for every format, so that a JPEG's DCT-scaled decode is a
free first step: average by the largest power of two that leaves both sides at
or above the target, then average (BOX) to the square target.  The image is
squeezed, never letterboxed: bars would tell the network its aspect ratio.

Shape suffixes: H rows, W columns.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from cxr.image_size import halvings
from cxr.radiograph import Radiograph

PREPROCESS_VERSION: Literal["1"] = "1"


class PreprocessSpec(BaseModel):
    """How a bundle wants its input made; it travels in the bundle's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal["1"] = Field(PREPROCESS_VERSION, description="Version of this procedure.")
    size: int = Field(ge=32, le=1024, description="Rows and columns of the input, in pixels.")


def preprocess(radiograph: Radiograph, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Make the model's input from a radiograph.

    Returns:
        `image_HW`, uint8 [size, size], C-contiguous, 0 black to 255 white.
    """
    return image_array(model_input(radiograph, spec))


def model_input(radiograph: Radiograph, spec: PreprocessSpec) -> Image.Image:
    """Return the same as an image of Pillow, mode L."""
    image = Image.fromarray(radiograph.pixels_HW)
    stored = radiograph.processing
    remaining = halvings(stored.rows, stored.columns, spec.size) // radiograph.reduction
    if remaining > 1:
        image = image.reduce(remaining)
    if image.size != (spec.size, spec.size):
        image = image.resize((spec.size, spec.size), Image.Resampling.BOX)
    return image


def image_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of an image of mode L: uint8 [H, W]."""
    return np.array(image, dtype=np.uint8)
