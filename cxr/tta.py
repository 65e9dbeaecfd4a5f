"""Test-time augmentation: the views of one image, and the mean of their logits and maps.

A view is a small similarity transform about the centre: mirror, then rotate,
then scale.  None is flipped upside down or moved so far that an apex or a
costophrenic angle leaves the picture.  A policy is a named tuple of views; its
first one is always the plain image, whose novelty is the answer's.

Shape suffixes: K views, H rows, W columns (lower case for the coarse map's).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class TtaView:
    """Mirror left to right, rotate anticlockwise by `degrees`, enlarge by `scale`, in that
    order.
    """

    mirror: bool = False
    degrees: float = 0.0
    scale: float = 1.0


PLAIN = TtaView()

POLICIES: dict[str, tuple[TtaView, ...]] = {
    "mirror": (PLAIN, TtaView(mirror=True)),
    "mirror-tilt": (
        PLAIN,
        TtaView(mirror=True),
        TtaView(degrees=4.0),
        TtaView(mirror=True, degrees=-4.0),
    ),
}


def make_views(image_HW: NDArray[np.uint8], views: Sequence[TtaView]) -> NDArray[np.uint8]:
    """Make `views_KHW` (uint8) of an image; what comes in from outside the picture is black."""
    return np.stack([apply_view(image_HW, view) for view in views])


def apply_view(image_HW: NDArray[np.uint8], view: TtaView) -> NDArray[np.uint8]:
    """Show an image as `view` does; bilinear, same size."""
    if view == PLAIN:
        return image_HW
    image = Image.fromarray(image_HW)
    return np.asarray(
        image.transform(
            image.size, Image.Transform.AFFINE, _affine(view, image.size), Image.Resampling.BILINEAR
        )
    )


def undo_view(map_hw: NDArray[np.float32], view: TtaView) -> NDArray[np.float32]:
    """Undo a view's transform on its map; bilinear, same size.

    A cell whose source lies outside the view's picture takes the nearest cell's value.
    """
    if view == PLAIN:
        return map_hw
    if view == TtaView(mirror=True):
        return np.ascontiguousarray(map_hw[:, ::-1])
    height, width = map_hw.shape
    padded = Image.fromarray(np.pad(map_hw, _MARGIN, mode="edge"))
    size = (width + 2 * _MARGIN, height + 2 * _MARGIN)
    restored = padded.transform(
        size, Image.Transform.AFFINE, _invert(_affine(view, size)), Image.Resampling.BILINEAR
    )
    return np.asarray(restored, dtype=np.float32)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


def mean_logit(logit_N: NDArray[np.float32]) -> float:
    """Average the logits of one image's views; the policy's calibration was fitted on this mean."""
    return float(logit_N[0] if len(logit_N) == 1 else logit_N.mean(dtype=np.float64))


def mean_map(map_Nhw: NDArray[np.float32], views: Sequence[TtaView]) -> NDArray[np.float32]:
    """Average the maps of one image's views, each after its view was undone."""
    if len(map_Nhw) == 1 and tuple(views) == (PLAIN,):
        only_hw: NDArray[np.float32] = map_Nhw[0]
        return only_hw
    upright = [undo_view(map_hw, view) for map_hw, view in zip(map_Nhw, views, strict=True)]
    return np.asarray(np.mean(upright, axis=0, dtype=np.float32))


_MARGIN = 2
"""Cells of edge padding around a map before it is turned, so that no corner comes in as zero."""


def _affine(view: TtaView, size: tuple[int, int]) -> Affine:
    """Pillow's matrix of a view: from an output position to the input position it reads."""
    turn = math.radians(view.degrees)
    cos, sin = math.cos(turn) / view.scale, math.sin(turn) / view.scale
    sign = -1.0 if view.mirror else 1.0
    a, b, d, e = sign * cos, -sign * sin, sin, cos
    x, y = size[0] / 2, size[1] / 2
    return a, b, x - a * x - b * y, d, e, y - d * x - e * y


def _invert(matrix: Affine) -> Affine:
    a, b, c, d, e, f = matrix
    determinant = a * e - b * d
    return (
        e / determinant, -b / determinant, (b * f - c * e) / determinant,
        -d / determinant, a / determinant, (c * d - a * f) / determinant,
    )  # fmt: skip
