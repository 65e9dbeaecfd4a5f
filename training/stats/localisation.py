"""How well maps point at segmentation masks, compared with two guesses that ignore the image.

In the pointing game (Zhang et al. 2018) a map hits if its maximum lies in the segmentation mask, or
within 2 % of the image's side of it. The energy is the share of a map's evidence inside the mask.
`centre` always guesses the middle of the image; `usual_place` guesses the mean mask of the other
images.

Shape suffixes: P positive images, H and W picture rows and columns, h and w map rows and columns.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.stats.format import figure_text
from training.stats.metrics import Floats, wilson_interval

_TOLERANCE = 0.02
"""Distance of a hit from a segmentation mask at most, as a share of the image's side."""

_CENTRE_SPREAD = 0.25
"""Standard deviation of the guess at the centre, as a share of the picture's side."""

_SIZES = ("small", "medium", "large")


def measure_localisation(
    cam_Phw: NDArray[np.float32], mask_PHW: NDArray[np.uint8], pool: Literal["mean", "lse"]
) -> dict[str, Any]:
    """Measure the maps of positive images against their segmentation masks.

    Args:
        cam_Phw: as the graph gives them.
        mask_PHW: 255 for a fully covered pixel; no mask is empty.
        pool: how a map is pooled to its logit; it decides what a cell's evidence is.

    Returns:
        What `metrics.json` holds under `localisation`: `pointing` (with Wilson's interval) and
        `energy` of the maps and of both guesses, over all images and by tercile of the outlines'
        area.
    """
    near_PHW = np.stack([_widen(mask_HW) for mask_HW in mask_PHW])
    guesses = {
        "map": np.stack([_evidence(cam_hw, mask_PHW.shape[1:], pool) for cam_hw in cam_Phw]),
        "centre": np.broadcast_to(_centre(mask_PHW.shape[1]), mask_PHW.shape),
        "usual_place": _others(mask_PHW),
    }
    hit_P = {name: _hits(guess_PHW, near_PHW) for name, guess_PHW in guesses.items()}
    energy_P = {name: _energy(guess_PHW, mask_PHW) for name, guess_PHW in guesses.items()}
    area_P = mask_PHW.mean(axis=(1, 2)) / 255
    edges = np.quantile(area_P, [1 / 3, 2 / 3])
    size_P = np.searchsorted(edges, area_P, side="left")
    groups = {"all": np.ones(len(area_P), dtype=np.bool_)} | {
        name: size_P == i for i, name in enumerate(_SIZES)
    }
    return {"tolerance": _TOLERANCE, "area_terciles": edges.tolist()} | {
        group: {"n": int(chosen_P.sum())}
        | {name: _figures(hit_P[name][chosen_P], energy_P[name][chosen_P]) for name in guesses}
        for group, chosen_P in groups.items()
    }


def localisation_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Write the figures as a Markdown table."""
    small, large = (f"{edge:.2%}" for edge in figures["area_terciles"])
    yield (
        f"Outlines up to {small} of the picture are small, over {large} large; a hit lies in "
        f"one or within 2 % beside it."
    )
    yield ""
    yield (
        "| segmentation masks | images | hits: the map | the centre | the usual place | "
        "energy: the map | the usual place |"
    )
    yield "|---|---|---|---|---|---|---|"
    for group in ("all", *_SIZES):
        row = figures[group]
        hits = " | ".join(
            figure_text(row[name], "pointing") for name in ("map", "centre", "usual_place")
        )
        energies = " | ".join(figure_text(row[name], "energy") for name in ("map", "usual_place"))
        yield f"| {group} | {row['n']:,} | {hits} | {energies} |"


def _figures(hit_P: NDArray[np.bool_], energy_P: Floats) -> dict[str, Any]:
    hits, images = int(hit_P.sum()), len(hit_P)
    return {
        "pointing": hits / images if images else None,
        "pointing_ci95": wilson_interval(hits, images),
        "energy": float(energy_P.mean()) if images else None,
    }


def _evidence(
    cam_hw: NDArray[np.float32], shape: tuple[int, ...], pool: Literal["mean", "lse"]
) -> Floats:
    """Enlarge a map to its picture, in shares of what speaks for the finding: under `lse`, each
    cell's of the sum.
    """
    smooth_HW = np.asarray(
        Image.fromarray(cam_hw).resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float64
    )
    return np.exp(smooth_HW - smooth_HW.max()) if pool == "lse" else np.maximum(smooth_HW, 0.0)


def _widen(mask_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Take in the pixels that lie within the tolerance of a covered one."""
    reach = round(_TOLERANCE * len(mask_HW))
    covered = Image.fromarray(np.where(mask_HW > 0, np.uint8(255), np.uint8(0)))
    return np.asarray(covered.filter(ImageFilter.MaxFilter(2 * reach + 1))) > 0


def _centre(side: int) -> Floats:
    place = (np.arange(side) + 0.5) / side - 0.5
    bell = np.exp(-((place / _CENTRE_SPREAD) ** 2) / 2)
    return np.asarray(bell[:, None] * bell)


def _others(mask_PHW: NDArray[np.uint8]) -> Floats:
    """Return each image the sum of the others' segmentation masks."""
    return np.asarray(mask_PHW.sum(axis=0, dtype=np.float64) - mask_PHW)


def _hits(guess_PHW: Floats, near_PHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether each guess's maximum lies near the segmentation mask."""
    highest_P = guess_PHW.reshape(len(guess_PHW), -1).argmax(axis=1)
    return np.asarray(near_PHW.reshape(len(near_PHW), -1)[np.arange(len(near_PHW)), highest_P])


def _energy(guess_PHW: Floats, mask_PHW: NDArray[np.uint8]) -> Floats:
    """Return the share of each guess inside its segmentation mask; 0 if the guess is empty."""
    inside_P = (guess_PHW * (mask_PHW / 255)).sum(axis=(1, 2))
    all_P = guess_PHW.sum(axis=(1, 2))
    return np.asarray(np.divide(inside_P, all_P, out=np.zeros_like(inside_P), where=all_P > 0))
