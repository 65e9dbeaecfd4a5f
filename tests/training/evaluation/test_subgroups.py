import numpy as np
import pytest

from cxr.evaluation_schema import SubgroupFigures
from training.evaluation.prediction import LabelledPrediction
from training.evaluation.subgroups import subgroup_figures


def prediction(
    number: int,
    label: int,
    probability: float,
    *,
    sex: str | None = None,
    age_years: float | None = None,
) -> LabelledPrediction:
    return LabelledPrediction(
        image_id=str(number),
        file=f"{number}.png",
        sha256="",
        person_group=str(number),
        label=label,
        role="",
        logit=0.0,
        plain_logit=0.0,
        probability=probability,
        spread=None,
        novelty=0.0,
        is_novel=False,
        age_years=age_years,
        sex=sex,
        view_position=None,
        warnings="",
    )


@pytest.fixture
def predictions() -> list[LabelledPrediction]:
    """100 men, told apart perfectly; 100 women, not at all; 10 of no stated sex."""
    rng = np.random.default_rng(1)
    men = [
        prediction(i, i % 2, 0.9 if i % 2 else 0.1, sex="M", age_years=30.0 + i % 3)
        for i in range(100)
    ]
    women = [
        prediction(100 + i, i % 2, float(rng.random()), sex="F", age_years=85.0) for i in range(100)
    ]
    return [*men, *women, *(prediction(200 + i, i % 2, 0.5) for i in range(10))]


def by_group(entries: list[SubgroupFigures]) -> dict[str, SubgroupFigures]:
    return {entry.group: entry for entry in entries}


def test_each_group_is_measured_by_itself(predictions: list[LabelledPrediction]) -> None:
    found = by_group(subgroup_figures(predictions, 0.5))
    assert found["M"].auroc == found["M"].sensitivity == found["M"].specificity == 1.0
    assert found["F"].auroc == pytest.approx(0.5, abs=0.15)
    assert (found["18 to under 40 years"].n, found["80 years and over"].n) == (100, 100)


def test_a_group_with_few_positives_is_counted_and_not_measured(
    predictions: list[LabelledPrediction],
) -> None:
    unstated = [
        entry for entry in subgroup_figures(predictions, 0.5) if entry.group == "not stated"
    ]
    assert [(entry.attribute, entry.n, entry.n_positive) for entry in unstated] == [
        ("age", 10, 5),
        ("sex", 10, 5),
    ]
    assert all(entry.auroc is None and entry.sensitivity is None for entry in unstated)


def test_what_no_file_states_makes_no_groups(predictions: list[LabelledPrediction]) -> None:
    assert {entry.attribute for entry in subgroup_figures(predictions, 0.5)} == {"age", "sex"}
