"""How well maps point at segmentation masks, compared with two guesses that ignore the image.

In the pointing game (Zhang et al. 2018) a map hits if its maximum lies in the segmentation mask, or
within 2 % of the image's side of it. The energy is the share of a map's evidence inside the mask.
`centre` always guesses the middle of the image; `usual_place` guesses the mean mask of the other
images.

Shape suffixes: P positive images, H and W picture rows and columns, h and w map rows and columns.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from cxr.metrics_schema import GuessFigures, Localisation, LocalisationGroup
from training.stats.figure_texts import figure_text
from training.stats.metrics import Floats, auroc, delong_interval, rate, wilson_interval

_TOLERANCE = 0.02
"""Distance of a hit from a segmentation mask at most, as a share of the image's side."""

_CENTRE_SPREAD = 0.25
"""Standard deviation of the guess at the centre, as a share of the picture's side."""


def measure_localisation(
    cam_Phw: NDArray[np.float32], mask_PHW: NDArray[np.uint8], pool: Literal["mean", "lse"]
) -> Localisation:
    """Measure the maps of positive images against their segmentation masks.

    Args:
        cam_Phw: as the graph gives them.
        mask_PHW: 255 for a fully covered pixel; no mask is empty.
        pool: how a map is pooled to its logit; it decides what a cell's evidence is.

    Returns:
        `pointing` (with Wilson's interval) and `energy` of the maps and of both guesses, over all
        images and by tercile of the masks' area.
    """
    near_PHW = np.stack([_widen(mask_HW) for mask_HW in mask_PHW])
    guesses = {
        "map": np.stack([_evidence(cam_hw, mask_PHW.shape[1:], pool) for cam_hw in cam_Phw]),
        "centre": np.broadcast_to(_centre(mask_PHW.shape[1]), mask_PHW.shape),
        "usual_place": _others(mask_PHW),
    }
    hit_P = {name: _hits(guess_PHW, near_PHW) for name, guess_PHW in guesses.items()}
    energy_P = {name: _energy(guess_PHW, mask_PHW) for name, guess_PHW in guesses.items()}
    area_P = _area(mask_PHW)
    edges = np.quantile(area_P, [1 / 3, 2 / 3])
    size_P = np.searchsorted(edges, area_P, side="left")

    def group(chosen_P: NDArray[np.bool_]) -> LocalisationGroup:
        of_guess = {
            name: _figures(hit_P[name][chosen_P], energy_P[name][chosen_P]) for name in guesses
        }
        return LocalisationGroup(
            n=int(chosen_P.sum()),
            map=of_guess["map"],
            centre=of_guess["centre"],
            usual_place=of_guess["usual_place"],
        )

    return Localisation(
        tolerance=_TOLERANCE,
        area_terciles=edges.tolist(),
        all=group(np.ones(len(area_P), dtype=np.bool_)),
        small=group(size_P == 0),
        medium=group(size_P == 1),
        large=group(size_P == 2),
    )


def detection_by_size(
    localisation: Localisation,
    mask_PHW: NDArray[np.uint8],
    probability_P: Floats,
    probability_Q: Floats,
    threshold: float,
) -> Localisation:
    """Add AUROC and sensitivity to each size group: its positive images against all negative ones.

    Args:
        localisation: figures of these positive images.
        mask_PHW: their masks.
        probability_P: their probabilities.
        probability_Q: probabilities of the negative images.
        threshold: of the default operating point.
    """
    size_P = np.searchsorted(localisation.area_terciles, _area(mask_PHW), side="left")

    def detected(group: LocalisationGroup, chosen_P: NDArray[np.bool_]) -> LocalisationGroup:
        chosen = probability_P[chosen_P]
        label_N = np.repeat([1, 0], [len(chosen), len(probability_Q)])
        probability_N = np.concatenate([chosen, probability_Q])
        hits = int((chosen >= threshold).sum())
        return group.changed(
            auroc=auroc(label_N, probability_N),
            auroc_ci95=delong_interval(label_N, probability_N),
            sensitivity=rate(hits, len(chosen)),
            sensitivity_ci95=wilson_interval(hits, len(chosen)),
        )

    return localisation.changed(
        all=detected(localisation.all, size_P >= 0),
        small=detected(localisation.small, size_P == 0),
        medium=detected(localisation.medium, size_P == 1),
        large=detected(localisation.large, size_P == 2),
    )


def localisation_lines(figures: Localisation) -> Iterator[str]:
    """Write the figures as a Markdown table."""
    small, large = (f"{edge:.2%}" for edge in figures.area_terciles)
    yield (
        f"Masks of up to {small} of the image are small, over {large} large. A hit lies in a mask "
        f"or within 2 % of the image's side of it."
    )
    yield ""
    yield (
        "| segmentation masks | images | hits: the map | the centre | the usual place | "
        "energy: the map | the usual place |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name, row in figures.groups.items():
        guesses = (row.map, row.centre, row.usual_place)
        hits = " | ".join(figure_text(guess.pointing, guess.pointing_ci95) for guess in guesses)
        energies = f"{figure_text(row.map.energy)} | {figure_text(row.usual_place.energy)}"
        yield f"| {name} | {row.n:,} | {hits} | {energies} |"


def _area(mask_PHW: NDArray[np.uint8]) -> Floats:
    """Return the share of the image that each mask covers."""
    return np.asarray(mask_PHW.mean(axis=(1, 2)) / 255)


def _figures(hit_P: NDArray[np.bool_], energy_P: Floats) -> GuessFigures:
    hits = int(hit_P.sum())
    images = len(hit_P)
    return GuessFigures(
        pointing=rate(hits, images),
        pointing_ci95=wilson_interval(hits, images),
        energy=float(energy_P.mean()) if images else None,
    )


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
