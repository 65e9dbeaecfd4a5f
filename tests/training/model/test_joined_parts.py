"""Maps that are drawn for the logit of others."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from training.model.backbone import Backbone
from training.model.joined_parts import Drawing, DrawnMap
from training.recipe.schema import Pool


class Blocks(Backbone):
    """A backbone that gives the means of square blocks of the image."""

    channels = 1

    def __init__(self, cells: int) -> None:
        super().__init__()
        self._cells = cells

    def forward(self, image_N1HW: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(image_N1HW, self._cells)


def drawn_map(*cells: int, pool: Pool) -> DrawnMap:
    drawings = [Drawing(Blocks(own), own_cells=own, cells=max(cells)) for own in cells]
    for drawing in drawings:
        torch.nn.init.ones_(drawing.head.weight)
    return DrawnMap(drawings, pool=pool)


@pytest.mark.parametrize("pool", get_args(Pool))
def test_the_map_adds_up_to_the_logit_of_others(pool: Pool) -> None:
    image_N1HW = torch.rand(3, 1, 40, 40)
    wanted_N = torch.tensor([-4.0, 0.0, 2.5])

    with torch.inference_mode():
        cam_Nhw = drawn_map(8, 10, pool=pool)(image_N1HW, wanted_N)

    assert cam_Nhw.shape == (3, 10, 10)
    pooled_N = (
        cam_Nhw.mean(dim=(1, 2))
        if pool == "mean"
        else cam_Nhw.flatten(1).logsumexp(dim=1) - math.log(100)
    )
    torch.testing.assert_close(pooled_N, wanted_N)


def test_maps_of_other_sizes_are_averaged_by_the_area_of_their_cells() -> None:
    image_N1HW = torch.rand(2, 1, 40, 40)

    with torch.inference_mode():
        cam_Nhw = drawn_map(8, 10, pool="mean")(image_N1HW, torch.zeros(2))

    finest_Nhw = [  # 40 cells are a multiple of either
        Blocks(cells)(image_N1HW)
        .repeat_interleave(40 // cells, 2)
        .repeat_interleave(40 // cells, 3)
        for cells in (8, 10)
    ]
    wanted_Nhw = Blocks(10)(sum(finest_Nhw) / 2)[:, 0]
    torch.testing.assert_close(cam_Nhw, wanted_Nhw - wanted_Nhw.mean(dim=(1, 2), keepdim=True))
