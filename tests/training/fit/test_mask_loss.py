import pytest
import torch

from training.fit.losses import EVEN_ODDS, mask_loss

SURE = 12.0


def maps_of(*drawn: torch.Tensor) -> torch.Tensor:
    """Maps that call each drawn cell covered, and no other."""
    return EVEN_ODDS + SURE * (2.0 * torch.stack(drawn) - 1.0)


@pytest.fixture
def lesion_HW() -> torch.Tensor:
    mask_HW = torch.zeros(16, 16)
    mask_HW[4:8, 8:12] = 1.0
    return mask_HW


def test_a_map_that_draws_what_the_expert_drew_costs_next_to_nothing(
    lesion_HW: torch.Tensor,
) -> None:
    assert float(mask_loss(maps_of(lesion_HW), lesion_HW[None, None])) < 1e-3


def test_missing_a_lesion_misplacing_it_and_inventing_one_all_cost(lesion_HW: torch.Tensor) -> None:
    nothing_HW = torch.zeros(16, 16)
    missed = mask_loss(maps_of(nothing_HW), lesion_HW[None, None])
    misplaced = mask_loss(maps_of(lesion_HW.flip(1)), lesion_HW[None, None])
    invented = mask_loss(maps_of(lesion_HW), nothing_HW[None, None])

    assert float(misplaced) > float(missed) > 1.0
    assert float(invented) > 1.0


def test_images_without_a_lesion_alone_have_a_finite_loss_with_a_gradient() -> None:
    cam_Nhw = torch.zeros(2, 8, 8, requires_grad=True)

    mask_loss(cam_Nhw, torch.zeros(2, 1, 32, 32)).backward()  # type: ignore[no-untyped-call]

    assert cam_Nhw.grad is not None
    assert float(cam_Nhw.grad.min()) > 0.0  # every cell is pushed down


def test_a_cell_is_asked_for_the_share_of_it_that_is_covered() -> None:
    """A mask four times as fine as the map, a quarter of each cell covered: log-odds of a quarter
    have no slope."""
    mask_N1HW = torch.zeros(1, 1, 8, 8)
    mask_N1HW[..., ::2, ::2] = 1.0
    cam_Nhw = torch.full((1, 4, 4), EVEN_ODDS, requires_grad=True)

    mask_loss(cam_Nhw, mask_N1HW).backward()  # type: ignore[no-untyped-call]

    assert cam_Nhw.grad is not None
    assert float(cam_Nhw.grad.std()) == pytest.approx(0.0, abs=1e-7)
    assert float(cam_Nhw.grad.mean()) > 0.0  # half is more than a quarter
