"""Corrupted copies of radiographs, to choose between recipes by their robustness.

On held-out images of its own hospital nearly every recipe is nearly perfect, so that figure does
not predict performance elsewhere. The ranking of images with changed exposure, contrast, sharpness,
noise and position predicts it better.

Shape suffixes: N images, H and W rows and columns.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Image8 = NDArray[np.uint8]
Corruption = Callable[[Image8, np.random.Generator], Image8]
"""From `image_HW`, uint8, to a changed copy of the same shape; the generator decides what is left
to chance."""

_NOISE_STD = 0.06
"""Of a 0..1 grey scale."""

_BLUR_SHARE = 1.25 / 128
"""Standard deviation of the blur as a share of the side, so that every input size loses the same
detail."""

_ROTATE_DEGREES = 10.0
_SHIFT = 0.08
"""Largest shift, as a share of the side."""


def _gamma(exponent: float, image_HW: Image8, _: np.random.Generator) -> Image8:
    return _to_uint8((image_HW / 255.0) ** exponent)


def _contrast(gain: float, image_HW: Image8, _: np.random.Generator) -> Image8:
    grey_HW = image_HW / 255.0
    return _to_uint8((grey_HW - grey_HW.mean()) * gain + grey_HW.mean())


def _blur(image_HW: Image8, _: np.random.Generator) -> Image8:
    return np.asarray(
        Image.fromarray(image_HW).filter(ImageFilter.GaussianBlur(_BLUR_SHARE * len(image_HW)))
    )


def _noise(image_HW: Image8, rng: np.random.Generator) -> Image8:
    return _to_uint8(image_HW / 255.0 + rng.normal(0.0, _NOISE_STD, image_HW.shape))


def _turn_and_shift(image_HW: Image8, rng: np.random.Generator) -> Image8:
    degrees = float(rng.choice([-_ROTATE_DEGREES, _ROTATE_DEGREES]))
    right, down = rng.uniform(-_SHIFT, _SHIFT, 2) * len(image_HW)
    moved = Image.fromarray(image_HW).rotate(
        degrees, Image.Resampling.BILINEAR, translate=(round(right), round(down))
    )
    return np.asarray(moved)


def _zoom(factor: float, image_HW: Image8, _: np.random.Generator) -> Image8:
    """Enlarge about the centre; what comes in from outside is black."""
    centre = (len(image_HW) - 1) / 2
    offset = centre * (1.0 - 1.0 / factor)
    affine = (1.0 / factor, 0.0, offset, 0.0, 1.0 / factor, offset)
    image = Image.fromarray(image_HW)
    return np.asarray(
        image.transform(image.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    )


def _to_uint8(grey_HW: NDArray[np.float64]) -> Image8:
    return np.rint(np.clip(grey_HW, 0.0, 1.0) * 255.0).astype(np.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    "gamma 0.6": partial(_gamma, 0.6),
    "gamma 1.6": partial(_gamma, 1.6),
    "contrast 0.6": partial(_contrast, 0.6),
    "contrast 1.4": partial(_contrast, 1.4),
    "blur": _blur,
    "noise": _noise,
    "turned and shifted": _turn_and_shift,
    "zoomed in": partial(_zoom, 1.15),
    "zoomed out": partial(_zoom, 1 / 1.15),
}
"""Each corruption is applied alone. None changes a radiologist's reading of the radiograph."""


def corrupted(name: str, image_HW: Image8, number: int) -> Image8:
    """Return the corrupted copy of image `number` of a data set: the same one each time."""
    return CORRUPTIONS[name](image_HW, np.random.default_rng([number, *name.encode()]))
