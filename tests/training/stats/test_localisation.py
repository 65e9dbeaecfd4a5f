import numpy as np
import pytest
from numpy.typing import NDArray

from training.stats.localisation import (
    detection_by_size,
    localisation_lines,
    measure_localisation,
)

SIDE, CELLS = 64, 16


def outlines(*corners: tuple[int, int], side: int = 8) -> NDArray[np.uint8]:
    """Masks with one square each."""
    mask_PHW = np.zeros((len(corners), SIDE, SIDE), dtype=np.uint8)
    for mask_HW, (row, column) in zip(mask_PHW, corners, strict=True):
        mask_HW[row : row + side, column : column + side] = 255
    return mask_PHW


def maps_of(
    mask_PHW: NDArray[np.uint8], high: float = 8.0, low: float = -8.0
) -> NDArray[np.float32]:
    """Maps that are high on the cells that masks cover."""
    cells_Phw = (
        mask_PHW.reshape(-1, CELLS, SIDE // CELLS, CELLS, SIDE // CELLS).mean(axis=(2, 4)) / 255
    )
    return np.asarray(low + (high - low) * cells_Phw, dtype=np.float32)


def test_a_map_on_the_outlines_hits_every_one_and_keeps_its_evidence_inside() -> None:
    mask_PHW = outlines((4, 4), (40, 48), (8, 52))

    figures = measure_localisation(maps_of(mask_PHW), mask_PHW, "lse").all

    assert (figures.n, figures.map.pointing) == (3, 1.0)
    assert (figures.map.energy or 0.0) > 0.8
    assert (figures.centre.pointing, figures.usual_place.pointing) == (0.0, 0.0)


def test_a_map_on_the_wrong_side_hits_nothing() -> None:
    mask_PHW = outlines((4, 4), (40, 50))

    figures = measure_localisation(maps_of(mask_PHW)[..., ::-1].copy(), mask_PHW, "lse").all

    assert figures.map.pointing == 0.0
    assert (figures.map.energy or 0.0) < 0.01


def test_a_hit_may_lie_two_percent_of_the_side_beside_the_outline_and_no_more() -> None:
    mask_PHW = outlines((30, 30))  # the side is 64: 2 % of it is one pixel
    for distance, hit in ((0, 1.0), (1, 1.0), (2, 0.0)):
        cam_Phw = np.zeros((1, SIDE, SIDE), dtype=np.float32)
        cam_Phw[0, 33, 37 + distance] = 5.0
        assert measure_localisation(cam_Phw, mask_PHW, "mean").all.map.pointing == hit, distance


def test_where_the_others_are_is_the_guess_of_the_usual_place() -> None:
    figures = measure_localisation(
        maps_of(outlines((0, 0))).repeat(3, axis=0), outlines((8, 8), (8, 8), (8, 8)), "mean"
    )

    assert figures.all.usual_place.pointing == 1.0
    assert figures.all.usual_place.energy == 1.0
    assert figures.all.map.pointing == 0.0


def test_under_a_mean_pool_only_what_speaks_for_the_finding_is_energy() -> None:
    mask_PHW = outlines((16, 16), side=16)
    cam_Phw = maps_of(mask_PHW, high=2.0, low=-3.0)

    assert (measure_localisation(cam_Phw, mask_PHW, "mean").all.map.energy or 0.0) > 0.9
    assert measure_localisation(-np.abs(cam_Phw), mask_PHW, "mean").all.map.energy == 0.0


def test_figures_come_by_tercile_of_the_outlines_area() -> None:
    sides = (4, 4, 8, 8, 16, 16)
    mask_PHW = np.concatenate([outlines((8, 8), side=side) for side in sides])
    cam_Phw = maps_of(mask_PHW)
    cam_Phw[:2] = cam_Phw[:2, ::-1, ::-1]  # the small ones are missed

    figures = measure_localisation(cam_Phw, mask_PHW, "lse")

    assert [group.n for group in (figures.small, figures.medium, figures.large)] == [2, 2, 2]
    assert [group.map.pointing for group in (figures.small, figures.medium, figures.large)] == [
        0.0,
        1.0,
        1.0,
    ]
    assert figures.area_terciles == pytest.approx(
        np.quantile(np.square(sides) / SIDE**2, [1 / 3, 2 / 3])
    )


def test_the_table_has_a_row_for_each_size_and_says_where_there_is_nothing_to_measure() -> None:
    mask_PHW = outlines((4, 4))
    lines = list(localisation_lines(measure_localisation(maps_of(mask_PHW), mask_PHW, "lse")))

    names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert names == ["segmentation masks", "all", "small", "medium", "large"]
    assert "not measurable" in lines[-1]


def test_a_model_that_misses_small_lesions_shows_it_by_size() -> None:
    sides = (4, 4, 8, 8, 16, 16)
    mask_PHW = np.concatenate([outlines((8, 8), side=side) for side in sides])
    localisation = measure_localisation(maps_of(mask_PHW), mask_PHW, "lse")
    missed, found = np.array([0.1, 0.2]), np.full(4, 0.9)

    by_size = detection_by_size(
        localisation, mask_PHW, np.concatenate([missed, found]), np.full(10, 0.3), 0.5
    )

    assert (by_size.small.auroc, by_size.small.sensitivity) == (0.0, 0.0)
    assert (by_size.large.auroc, by_size.large.sensitivity) == (1.0, 1.0)
    assert by_size.all.sensitivity == pytest.approx(4 / 6)
    assert by_size.large.map == localisation.large.map
