import math

import numpy as np
import pytest

from cxr.bundle import Bundle
from cxr.graph import open_graph
from cxr.heatmap import draw_heatmap
from cxr.interpret import (
    Calibration,
    Outputs,
    interpret,
    scope_warnings,
)
from cxr.prevalence_shift import PrevalenceShift
from cxr.radiograph import Metadata
from cxr.tta import POLICIES, make_views
from cxr.warning_codes import WarningCode
from tests.factories import chest


def outputs(*logits: float, novelty: float = 0.0) -> Outputs:
    count = len(logits)
    return Outputs(
        np.array(logits, np.float32),
        np.zeros((count, 4, 4), np.float32),
        np.full(count, novelty, np.float32),
    )


def test_the_label_is_positive_exactly_from_the_threshold_on(bundle: Bundle) -> None:
    assert interpret(outputs(0.0), bundle.manifest).label == "bright"
    assert interpret(outputs(-1e-6), bundle.manifest).label == "dark"
    assert interpret(outputs(-1.0), bundle.manifest, operating_point="screen").label == "bright"


def test_an_unknown_operating_point_is_a_key_error(bundle: Bundle) -> None:
    with pytest.raises(KeyError):
        interpret(outputs(0.0), bundle.manifest, operating_point="none")


def test_views_are_merged_by_the_mean_of_their_logits(bundle: Bundle) -> None:
    finding = interpret(outputs(2.0, -1.0), bundle.manifest)
    assert finding.probability == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert finding.tta is not None
    assert finding.tta.views == 2
    assert finding.tta.spread == pytest.approx(1 / (1 + math.exp(-2)) - 1 / (1 + math.exp(1)))
    assert interpret(outputs(2.0), bundle.manifest).tta is None


def test_the_merged_map_still_adds_up_to_the_served_logit(bundle: Bundle) -> None:
    views = make_views(chest(32, 32), POLICIES[bundle.manifest.tta_policy])
    answers = open_graph(bundle).run(views)
    finding = interpret(answers, bundle.manifest)
    assert finding.cam_hw.mean() + bundle.manifest.cam.bias == pytest.approx(
        answers.logit_N.mean(), abs=1e-5
    )
    np.testing.assert_allclose(finding.cam_hw, answers.cam_Nhw[0], atol=1e-4)


def test_a_novel_image_is_warned_of_before_it_counts_as_novel(bundle: Bundle) -> None:
    far, farther = (
        interpret(outputs(0.0, novelty=score), bundle.manifest) for score in (31.0, 61.0)
    )
    assert [c.code for c in far.warnings] == [WarningCode.NOVEL_INPUT]
    assert (far.novelty.is_novel, farther.novelty.is_novel) == (False, True)


@pytest.mark.parametrize("logit", [-1e6, -50.0, 0.0, 50.0, 1e6])
def test_calibration_never_overflows(logit: float) -> None:
    assert 0.0 <= Calibration(slope=2.0, intercept=1.0).probability(logit) <= 1.0


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (Metadata(), ["age_missing", "view_missing"]),
        (Metadata(age_years=4.0, view_position="PA"), ["outside_age_scope"]),
        (Metadata(age_years=58.0, view_position="LATERAL"), ["outside_view_scope"]),
        (Metadata(age_years=58.0, view_position="AP"), []),
    ],
)
def test_what_lies_outside_the_scope_is_warned_of(
    bundle: Bundle, metadata: Metadata, expected: list[str]
) -> None:
    assert [
        warning.code.value for warning in scope_warnings(metadata, bundle.manifest.scope)
    ] == expected


def test_a_heat_map_colours_evidence_on_one_scale_and_leaves_the_rest() -> None:
    picture_HW = chest(64, 64)
    nothing = draw_heatmap(np.full((4, 4), -3.0, np.float32), picture_HW)
    np.testing.assert_array_equal(nothing, np.repeat(picture_HW[..., None], 3, axis=2))
    cam_hw = np.zeros((4, 4), np.float32)
    cam_hw[0, 3] = 20.0
    changed = np.abs(draw_heatmap(cam_hw, picture_HW).astype(int) - picture_HW[..., None]).sum(
        axis=2
    )
    assert changed[:16, 48:].mean() > 10 * max(changed[32:, :32].mean(), 0.01)


def test_another_prevalence_moves_the_logit_by_the_difference_of_the_prior_logits() -> None:
    shift = PrevalenceShift(training=0.75, stated=0.05)
    for probability in (0.001, 0.3, 0.75, 0.999):
        moved = (
            math.log(probability / (1 - probability))
            + math.log(0.05 / 0.95)
            - math.log(0.75 / 0.25)
        )
        assert shift.apply(probability) == pytest.approx(1 / (1 + math.exp(-moved)), rel=1e-12)
    assert shift.apply(0.75) == pytest.approx(0.05)
    assert (shift.apply(0.0), shift.apply(1.0)) == (0.0, 1.0)


@pytest.mark.parametrize("stated", [0.0001, 0.05, 0.5, 0.9999])
@pytest.mark.parametrize("logit", [-20.0, -1.5, -1e-9, 0.0, 1e-9, 1.0, 20.0])
def test_another_prevalence_changes_no_label(bundle: Bundle, stated: float, logit: float) -> None:
    shift = PrevalenceShift(training=1 / 3, stated=stated)
    for point in bundle.manifest.operating_points:
        plain = interpret(outputs(logit), bundle.manifest, operating_point=point)
        moved = interpret(outputs(logit), bundle.manifest, operating_point=point, shift=shift)
        assert moved.label == plain.label
        assert (moved.label == bundle.manifest.labels.positive) == (
            moved.probability >= moved.threshold
        )
        assert (moved.probability > plain.probability) == (stated > 1 / 3)
        assert (plain.prevalence, moved.prevalence) == (None, stated)


def test_the_spread_of_views_is_that_of_the_moved_probabilities(bundle: Bundle) -> None:
    shift = PrevalenceShift(training=0.5, stated=0.1)
    finding = interpret(outputs(2.0, -1.0), bundle.manifest, shift=shift)
    high, low = (shift.apply(1 / (1 + math.exp(-logit))) for logit in (2.0, -1.0))
    assert finding.tta is not None
    assert finding.tta.spread == pytest.approx(high - low)


@pytest.mark.parametrize(
    ("training", "stated"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0), (0.1, math.nan)]
)
def test_a_prevalence_of_none_or_all_is_refused(training: float, stated: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        PrevalenceShift(training, stated)


def test_a_bundle_states_the_share_of_positives_it_learned_from(bundle: Bundle) -> None:
    data = bundle.manifest.training_data
    assert data.prevalence == pytest.approx(1 / 3)
    assert data.model_copy(update={"positives": 0}).prevalence is None
    assert data.model_copy(update={"positives": 3}).prevalence is None


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("cell", [(0, 1), (2, 3), (3, 0)])
def test_a_planted_bright_lesion_is_where_the_map_and_its_picture_point(
    bundle: Bundle, cell: tuple[int, int], num_views: int
) -> None:
    row, column = cell
    image_HW = np.full((32, 32), 40, np.uint8)
    image_HW[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 250
    views = POLICIES[bundle.manifest.tta_policy][:num_views]
    finding = interpret(open_graph(bundle).run(make_views(image_HW, views)), bundle.manifest)
    assert divmod(int(finding.cam_hw.argmax()), finding.cam_hw.shape[1]) == cell
    picture_HW = np.zeros((64, 64), np.uint8)
    drawn_HW = draw_heatmap(finding.cam_hw, picture_HW).astype(int).sum(axis=2)
    y, x = divmod(int(drawn_HW.argmax()), drawn_HW.shape[1])
    assert (y // 16, x // 16) == cell
