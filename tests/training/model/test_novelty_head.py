import numpy as np
import pytest
import torch
from torch import Tensor

from cxr.phantom import draw_phantom
from training.model.novelty_head import (
    FEATURE_COMPONENTS,
    THUMBNAIL_SIDE,
    NoveltyHead,
    Whitening,
    coarse_shape,
    wrong_views,
)

SIDE, CHANNELS = 64, 20


def chests(count: int, *, first_seed: int) -> Tensor:
    pixels_NHW = np.stack(
        [draw_phantom(SIDE, SIDE, seed=first_seed + number) for number in range(count)]
    )
    return torch.from_numpy(pixels_NHW)[:, None].float() / 255


def features(count: int, *, seed: int) -> Tensor:
    return (
        torch.randn(count, CHANNELS, generator=torch.Generator().manual_seed(seed))
        * torch.linspace(0.1, 3.0, CHANNELS)
        + 5.0
    )


@pytest.fixture(scope="module")
def head() -> NoveltyHead:
    """A head that knows forty drawn chests and features of any network."""
    head = NoveltyHead(CHANNELS)
    head.fit(head.describe(chests(40, first_seed=0), features(40, seed=1)))
    return head


@pytest.mark.parametrize(
    "show",
    [
        lambda image_N1HW: torch.rot90(image_N1HW, 1, (2, 3)),
        lambda image_N1HW: torch.rot90(image_N1HW, 2, (2, 3)),
        lambda image_N1HW: torch.rot90(image_N1HW, 3, (2, 3)),
        lambda image_N1HW: 1 - image_N1HW,
        lambda image_N1HW: torch.full_like(image_N1HW, 0.5),
        lambda image_N1HW: torch.rand(image_N1HW.shape, generator=torch.Generator().manual_seed(2)),
    ],
    ids=["turned left", "upside down", "turned right", "inverted", "blank", "noise"],
)
def test_a_chest_shown_wrongly_lies_farther_than_any_new_chest(
    head: NoveltyHead, show: "torch.nn.Module"
) -> None:
    new_N1HW, feature_NC = chests(20, first_seed=100), features(20, seed=3)

    assert float(head(show(new_N1HW), feature_NC).min()) > float(head(new_N1HW, feature_NC).max())


def test_features_that_the_training_images_never_had_add_to_the_distance(head: NoveltyHead) -> None:
    new_N1HW, feature_NC = chests(20, first_seed=100), features(20, seed=3)

    assert bool((head(new_N1HW, feature_NC + 30.0) > head(new_N1HW, feature_NC)).all())


def test_the_distance_depends_neither_on_brightness_nor_on_the_size(head: NoveltyHead) -> None:
    new_N1HW, feature_NC = chests(20, first_seed=100), features(20, seed=3)
    plain_N = head(new_N1HW, feature_NC)

    assert torch.allclose(head(new_N1HW + 0.1, feature_NC), plain_N, rtol=1e-3)
    assert torch.allclose(
        head(torch.nn.functional.interpolate(new_N1HW, scale_factor=2), feature_NC),
        plain_N,
        rtol=1e-4,
    )


def test_whitening_gives_every_axis_the_same_weight_and_the_median_image_the_distance_1() -> None:
    whitening, feature_NC = Whitening(CHANNELS, FEATURE_COMPONENTS), features(200, seed=4)

    whitening.fit(feature_NC)

    covariance_KK = torch.cov(
        ((feature_NC - whitening.mean_V) @ whitening.whitening_KV[:CHANNELS].T).T
    )
    assert torch.allclose(covariance_KK / covariance_KK[0, 0], torch.eye(CHANNELS), atol=1e-4)
    assert float(whitening(feature_NC).median()) == pytest.approx(1.0, rel=1e-5)
    assert float(whitening(feature_NC.mean(dim=0, keepdim=True))) == pytest.approx(0.0, abs=1e-4)


def test_fewer_images_than_components_leave_the_others_out() -> None:
    whitening = Whitening(CHANNELS, CHANNELS)

    whitening.fit(features(10, seed=5))

    assert int((whitening.whitening_KV != 0).any(dim=1).sum()) == 9


def test_a_thumbnail_averages_pixels_also_where_it_must_split_them() -> None:
    ramp_N1HW = torch.linspace(0, 1, 50).expand(1, 1, 50, 50)

    columns_T = coarse_shape(ramp_N1HW)[0, :THUMBNAIL_SIDE]

    assert torch.allclose(columns_T.diff(), columns_T.diff().mean(), rtol=0.02)
    assert torch.allclose(columns_T + columns_T.flip(0), torch.zeros(THUMBNAIL_SIDE), atol=1e-5)


def test_a_wrong_view_is_the_shape_of_the_turned_image() -> None:
    image_N1HW = chests(1, first_seed=7)

    quarter, half, three_quarters, inverted = wrong_views(coarse_shape(image_N1HW))

    for view, turned in ((quarter, 1), (half, 2), (three_quarters, 3)):
        assert torch.allclose(
            view, coarse_shape(torch.rot90(image_N1HW, turned, (2, 3))), atol=1e-5
        )
    assert torch.allclose(inverted, coarse_shape(1 - image_N1HW), atol=1e-5)


def test_a_network_that_gives_all_images_the_same_features_leaves_the_shape_to_judge() -> None:
    same_NC = 5.0 + 1e-6 * features(40, seed=1)
    head = NoveltyHead(CHANNELS)
    head.fit(head.describe(chests(40, first_seed=0), same_NC))

    new_N1HW = chests(20, first_seed=100)
    novelty_N, again_N = head(new_N1HW, same_NC[:20]), head(new_N1HW, same_NC[20:])

    assert torch.equal(novelty_N, again_N)
    assert float(novelty_N.min()) > 0
