import numpy as np
import pytest
import torch

from training.fit.batches import (
    Batch,
    Samples,
    epoch_batches,
    plain_batches,
    steps_per_epoch,
    to_float,
)
from training.recipe.catalogue import smoke
from training.recipe.override import override

CPU = torch.device("cpu")


@pytest.fixture
def samples() -> Samples:
    """21 images, 7 positive ones that are bright and 14 dark."""
    label_N = np.array([1] * 7 + [0] * 14)
    grey_N = np.where(label_N == 1, 200, 50).astype(np.uint8)
    return Samples(np.broadcast_to(grey_N[:, None, None], (21, 64, 64)), label_N)


def batches(samples: Samples, *settings: str, epoch: int = 0, seed: int = 1) -> list[Batch]:
    return list(epoch_batches(samples, override(smoke(), settings), epoch, seed, CPU))


def test_an_epoch_has_as_many_images_as_the_set_in_batches_of_near_equal_size(
    samples: Samples,
) -> None:
    sizes = [len(batch.target_N) for batch in batches(samples)]

    assert sizes == [7, 7, 7]
    assert (steps_per_epoch(21, 8), steps_per_epoch(3, 8)) == (3, 1)


def test_images_come_at_the_size_of_the_epoch(samples: Samples) -> None:
    assert batches(samples, epoch=0)[0][0].shape == (7, 1, 32, 32)
    assert batches(samples, epoch=1)[0][0].shape == (7, 1, 64, 64)


def test_each_image_keeps_its_own_target(samples: Samples) -> None:
    still = ("augment.mixup=0", "augment.gamma=0", "augment.contrast=0", "augment.brightness=0")

    for batch in batches(samples, *still):
        assert ((batch.image_N1HW[:, 0, 16, 16] > 0.5).float() == batch.target_N).all()


def test_mixing_stops_for_the_last_epochs(samples: Samples) -> None:
    def mixes(epoch: int) -> bool:
        targets = torch.cat(
            [batch.target_N for batch in batches(samples, "augment.mixup_until=0.5", epoch=epoch)]
        )
        return not set(targets.tolist()) <= {0.0, 1.0}

    assert (mixes(0), mixes(1)) == (True, False)


def test_an_epoch_follows_from_its_seed_and_number_alone(samples: Samples) -> None:
    torch.manual_seed(11)
    one = batches(samples)
    torch.manual_seed(12)

    assert all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        for a, b in zip(one, batches(samples), strict=True)
    )
    assert not torch.equal(one[0][0], batches(samples, seed=2)[0][0])


def test_masks_move_with_their_images(samples: Samples) -> None:
    ramp_HW = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    drawn = Samples(
        np.broadcast_to(ramp_HW, (21, 64, 64)),
        samples.label_N,
        np.broadcast_to(ramp_HW, (21, 64, 64)),
    )
    normalisation = ("gamma", "contrast", "brightness", "blur", "noise", "mixup")

    for batch in batches(
        drawn,
        *(f"augment.{name}=0" for name in normalisation),
        "augment.rotate_degrees=30",
        epoch=1,
    ):
        assert batch.mask_N1HW is not None
        assert torch.allclose(
            batch.mask_N1HW, batch.image_N1HW, atol=2e-4
        )  # gamma keeps a hair above black
        assert float(batch.image_N1HW.std(dim=0).mean()) > 0.1


def test_greys_are_changed_in_images_and_never_in_masks(samples: Samples) -> None:
    still = (
        f"augment.{name}=0" for name in ("mirror", "rotate_degrees", "shift", "scale", "mixup")
    )
    drawn = Samples(samples.image_NHW, samples.label_N, np.full((21, 64, 64), 255, np.uint8))

    for batch in batches(drawn, *still):
        assert batch.mask_N1HW is not None
        assert torch.allclose(batch.mask_N1HW, torch.ones(()))
        assert not torch.allclose(batch.image_N1HW, batch.image_N1HW.mean(), atol=0.05)


def test_plain_batches_give_every_image_unchanged_in_order(samples: Samples) -> None:
    image_N1HW = torch.cat([batch.image_N1HW for batch in plain_batches(samples, 8, 64, CPU)])

    assert torch.equal(
        image_N1HW[:, 0] * 255, torch.from_numpy(np.array(samples.image_NHW)).float()
    )


def test_a_smaller_size_is_an_average() -> None:
    checkerboard = np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 255

    assert torch.allclose(to_float(checkerboard[None], 32, CPU), torch.full((1, 1, 32, 32), 0.5))


def test_taking_some_reads_them_into_memory(samples: Samples) -> None:
    masks_NHW = np.zeros_like(samples.image_NHW)
    masks_NHW[20] = 7
    taken = Samples(samples.image_NHW, samples.label_N, masks_NHW).take(np.array([0, 20]))

    assert taken.label_N.tolist() == [1, 0]
    assert taken.image_NHW.flags["C_CONTIGUOUS"]
    assert taken.mask_NHW is not None
    assert taken.mask_NHW[:, 0, 0].tolist() == [0, 7]
