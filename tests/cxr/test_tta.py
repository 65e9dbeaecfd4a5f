import numpy as np
import pytest

from cxr.tta import PLAIN, POLICIES, TtaView, apply_view, make_views, undo_view
from tests.factories import chest


def test_every_policy_starts_with_the_plain_image() -> None:
    for views in POLICIES.values():
        assert views[0] == PLAIN
        np.testing.assert_array_equal(make_views(chest(), views)[0], chest())


def test_mirroring_is_exact() -> None:
    np.testing.assert_array_equal(apply_view(chest(), TtaView(mirror=True)), chest()[:, ::-1])


@pytest.mark.parametrize(
    "view", sorted({view for views in POLICIES.values() for view in views}, key=repr)
)
def test_undoing_a_view_brings_a_map_back_to_its_place(view: TtaView) -> None:
    rows, columns = np.mgrid[0:224, 0:224]
    blob = np.exp(-((rows - 70) ** 2 + (columns - 150) ** 2) / 800).astype(np.float32)
    seen = (apply_view((blob * 255).astype(np.uint8), view) / 255).astype(np.float32)
    back = undo_view(seen, view)
    assert np.unravel_index(back.argmax(), back.shape) == pytest.approx((70, 150), abs=2)
    assert np.abs(back - blob)[20:-20, 20:-20].max() < 0.05


def test_a_flat_map_stays_flat_whatever_is_undone() -> None:
    for view in (TtaView(mirror=True, degrees=-4), TtaView(degrees=10), TtaView(scale=1.1)):
        np.testing.assert_allclose(
            undo_view(np.full((7, 7), 3.0, np.float32), view), 3.0, atol=1e-5
        )
