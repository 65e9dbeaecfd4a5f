"""Lesions that change places between radiographs."""

import torch
from torch import Tensor

from training.fit.lesion_swap import swap_lesions

SIDE = 64
OUTLINE = (slice(20, 32), slice(8, 20))


def make_pair() -> tuple[Tensor, Tensor, Tensor]:
    """Make a grey radiograph with a dark outlined square, and one with neither."""
    image_N1HW = torch.full((2, 1, SIDE, SIDE), 0.6)
    mask_N1HW = torch.zeros(2, 1, SIDE, SIDE)
    image_N1HW[0, 0][OUTLINE] = 0.1
    mask_N1HW[0, 0][OUTLINE] = 1.0
    return image_N1HW, mask_N1HW, torch.tensor([1.0, 0.0])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_lesion_its_outline_and_its_label_move_to_the_other_film() -> None:
    image_N1HW, mask_N1HW, target_N = make_pair()

    swapped, masks, targets = swap_lesions(image_N1HW, mask_N1HW, target_N, 1.0, generator())

    assert targets.tolist() == [0.0, 1.0]
    torch.testing.assert_close(masks, mask_N1HW.flip(0))
    torch.testing.assert_close(swapped, image_N1HW.flip(0))


def test_what_lies_far_from_the_outline_stays_in_its_film() -> None:
    image_N1HW, mask_N1HW, target_N = make_pair()
    image_N1HW[0, 0, 50:, 50:] = 1.0  # a marker of the first radiograph

    swapped, _, _ = swap_lesions(image_N1HW, mask_N1HW, target_N, 1.0, generator())

    assert (swapped[0, 0, 50:, 50:] == 1.0).all()
    assert (swapped[1, 0, 50:, 50:] == 0.6).all()


def test_what_is_exchanged_takes_the_brightness_of_where_it_comes_to_lie() -> None:
    image_N1HW, mask_N1HW, target_N = make_pair()
    image_N1HW[1] -= 0.2  # the second radiograph is darker

    swapped, _, _ = swap_lesions(image_N1HW, mask_N1HW, target_N, 1.0, generator())

    torch.testing.assert_close(swapped[0], torch.full((1, SIDE, SIDE), 0.6))  # no trace of the darker radiograph
    assert swapped[1, 0, 40, 40] == image_N1HW[1, 0, 40, 40]


def test_a_film_without_an_outline_or_without_a_partner_stays_as_it_is() -> None:
    image_N1HW, mask_N1HW, target_N = make_pair()
    for masks, targets in ((torch.zeros_like(mask_N1HW), target_N), (mask_N1HW, torch.ones(2))):
        swapped, new_masks, new_targets = swap_lesions(image_N1HW, masks, targets, 1.0, generator())

        assert torch.equal(swapped, image_N1HW)
        assert torch.equal(new_masks, masks)
        assert torch.equal(new_targets, targets)


def test_the_share_of_pairs_that_exchange_is_as_asked() -> None:
    image_N1HW, mask_N1HW, target_N = make_pair()
    many = (image_N1HW.repeat(200, 1, 1, 1), mask_N1HW.repeat(200, 1, 1, 1), target_N.repeat(200))

    _, _, targets = swap_lesions(*many, 0.3, generator())

    moved = int((targets != many[2]).sum()) / 2
    assert 40 <= moved <= 80
    assert targets.sum() == 200
