import pytest
import torch
from torch import Tensor

from training.fit.augment import augment, mix_pairs
from training.recipe.schema import Augmentation

NAMES = (
    "mirror",
    "rotate_degrees",
    "shift",
    "scale",
    "gamma",
    "contrast",
    "brightness",
    "blur",
    "noise",
)
STRONG = Augmentation(
    mirror=0.5,
    rotate_degrees=30,
    shift=0.3,
    scale=0.5,
    gamma=1,
    contrast=1,
    brightness=0.3,
    blur=0.5,
    noise=0.2,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**strengths: float) -> Augmentation:
    """Strengths that are zero but for those given."""
    return Augmentation(**dict.fromkeys(NAMES, 0.0) | strengths)


@pytest.fixture
def image_N1HW() -> Tensor:
    return torch.rand(6, 1, 32, 32, generator=generator(9))


def test_strong_augmentation_keeps_shape_range_and_its_input(image_N1HW: Tensor) -> None:
    before = image_N1HW.clone()

    changed = augment(image_N1HW, STRONG, generator())

    assert (changed.shape, changed.dtype) == (image_N1HW.shape, torch.float32)
    assert (float(changed.min()) >= 0.0) & (float(changed.max()) <= 1.0)
    assert torch.equal(image_N1HW, before)
    assert not torch.allclose(changed, before, atol=0.05)


def test_no_strength_leaves_images_as_they_are(image_N1HW: Tensor) -> None:
    assert torch.allclose(augment(image_N1HW, only(), generator()), image_N1HW, atol=2e-4)


def test_augmentation_follows_its_generator(image_N1HW: Tensor) -> None:
    one, same, other = (augment(image_N1HW, STRONG, generator(seed)) for seed in (1, 1, 2))

    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "strength", ["rotate_degrees", "shift", "scale", "gamma", "contrast", "brightness", "noise"]
)
def test_each_strength_changes_each_image_in_its_own_way(strength: str) -> None:
    twins_N1HW = torch.rand(1, 1, 32, 32, generator=generator(9)).expand(4, 1, 32, 32)
    changed = augment(twins_N1HW, only(**{strength: 0.4}), generator())

    assert all(not torch.allclose(changed[0], other, atol=1e-4) for other in changed[1:])


def test_a_mirror_turns_left_to_right_and_nothing_upside_down(image_N1HW: Tensor) -> None:
    mirrored = augment(image_N1HW, only(mirror=1.0), generator())

    assert torch.allclose(mirrored, image_N1HW.flip(3), atol=2e-4)


def test_blur_smooths_and_keeps_a_flat_image(image_N1HW: Tensor) -> None:
    blur = only(blur=1.0)
    flat = torch.full((2, 1, 16, 16), 0.3)

    assert float(augment(image_N1HW, blur, generator()).std()) < 0.6 * float(image_N1HW.std())
    assert torch.allclose(augment(flat, blur, generator()), flat, atol=1e-5)


def test_what_comes_in_from_outside_is_black() -> None:
    white = torch.ones(8, 1, 32, 32)

    shifted = augment(white, only(shift=0.5), generator())

    assert float(shifted.min()) < 1e-3


def test_a_pair_is_mixed_with_its_targets() -> None:
    image = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)

    mixed, target = mix_pairs(image, torch.tensor([0.0, 1.0]), torch.tensor([0.75, 1.0]))

    assert torch.equal(mixed[0], torch.full((1, 4, 4), 0.25))
    assert torch.equal(mixed[1], image[1])
    assert target.tolist() == [0.25, 1.0]
