import torch

from training.model.pyramid import LitePyramid, Pyramid, see

SIDE = 64


def looks_at(image_N1HW: torch.Tensor) -> list[torch.Tensor]:
    return [look_NHW[..., 16:-16, 16:-16] for look_NHW in see(image_N1HW).unbind(dim=1)]


def test_detail_does_not_depend_on_brightness_and_hardly_on_contrast() -> None:
    fine_N1HW = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))

    plain, brighter, stronger = (
        looks_at(image)[0] for image in (fine_N1HW, fine_N1HW + 2.0, fine_N1HW * 2.0)
    )

    assert torch.allclose(plain, brighter, atol=1e-4)
    assert torch.allclose(plain, stronger, rtol=0.15)


def test_faint_noise_is_not_blown_up_to_detail() -> None:
    noise_N1HW = 0.01 * torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))

    assert float(looks_at(noise_N1HW)[0].abs().max()) < 0.3


def test_the_third_look_sees_what_one_side_has_and_the_other_has_not() -> None:
    image_N1HW = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    image_N1HW[..., 24:40, 40:48] += 3.0
    detail, _, less_the_other = see(image_N1HW).unbind(dim=1)

    added = less_the_other - detail
    assert float(added[..., 24:40, 16:24].mean()) < -0.5  # opposite the bright patch
    assert abs(float(added[..., 24:40, 40:48].mean())) < 0.5


def test_a_shift_of_the_picture_shifts_the_features() -> None:
    torch.manual_seed(1)
    network = Pyramid((8, 8, 16, 16), channels=8).eval()
    image_N1HW = torch.zeros(1, 1, 256, 256)
    image_N1HW[..., 96:104, 96:104] = 1.0

    with torch.inference_mode():
        here, there = network(image_N1HW), network(image_N1HW.roll(32, dims=2))

    assert here.shape == (1, 8, 32, 32)
    assert torch.allclose(
        here.roll(4, dims=2)[..., 12:24, 10:20], there[..., 12:24, 10:20], atol=1e-4
    )


def test_the_parts_keep_their_order_by_which_seeds_and_optimizer_states_go() -> None:
    parts = [
        name.partition(".")[0] for name, _ in Pyramid((8, 8, 16, 16), channels=8).named_parameters()
    ]

    assert list(dict.fromkeys(parts)) == ["stem", "down", "across", "mix"]


def test_a_pyramid_on_lite_begins_with_a_grey_picture_in_each_colour() -> None:
    looks_N3HW = torch.eye(3)[..., None, None]

    with torch.inference_mode():
        detail, itself, less_the_other = LitePyramid(channels=8).colours(looks_N3HW)

    assert torch.equal(detail, itself)
    assert len(set(itself.flatten().tolist())) == 1
    assert not less_the_other.any()
