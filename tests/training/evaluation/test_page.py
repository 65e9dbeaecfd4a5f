import re
from pathlib import Path

import numpy as np
import pytest

from cxr.evaluation_schema import EvaluatedBundle, EvaluatedData, EvaluationMetrics, UnansweredFile
from cxr.metrics_schema import Figures
from cxr.preprocess import PreprocessSpec
from tests.factories import chest, make_png
from training.evaluation.console import summary_lines
from training.evaluation.gallery import Candidate, Gallery
from training.evaluation.page import report
from training.evaluation.prediction import (
    LabelledPrediction,
    Role,
    read_predictions,
    write_predictions,
)
from training.stats.metrics import measure


def write_results(
    folder: Path, label_N: list[int], probability_N: list[float], fitted_N: list[bool]
) -> None:
    """Write metrics.json and predictions.csv as an evaluation would."""

    def figures(keep: list[int]) -> Figures:
        labels = np.array([label_N[i] for i in keep], int)
        probabilities = np.array([probability_N[i] for i in keep])
        groups = [str(i) for i in keep]
        return measure(labels, probabilities, {"balanced": 0.5}, "balanced", groups_N=groups)

    everything = list(range(len(label_N)))
    unseen = [i for i in everything if not fitted_N[i]]
    cut_off = UnansweredFile(
        image_id="x<y>", path="x<y>.png", label=0, code="corrupt_image", detail="cut off"
    )
    metrics = EvaluationMetrics(
        **dict(figures(everything)),
        basis="synthetic",
        reading="plain",
        bundle=EvaluatedBundle(model="synthetic", version=3, sha256="0" * 64),
        finding="a <finding>",
        data=EvaluatedData(name="films & more", images=len(label_N), sha256="1" * 64),
        n_seen=sum(fitted_N),
        n_novel=0,
        n_missing=0,
        unreadable=[cut_off],
        subgroups=[],
        gallery=[],
    )
    if any(fitted_N):
        metrics = metrics.changed(unseen=figures(unseen))
    (folder / "metrics.json").write_text(metrics.text())
    predictions = [
        prediction(i, label, probability, "fitted" if fitted else "")
        for i, (label, probability, fitted) in enumerate(
            zip(label_N, probability_N, fitted_N, strict=True)
        )
    ]
    write_predictions(folder / "predictions.csv", predictions)


def prediction(number: int, label: int, probability: float, role: Role) -> LabelledPrediction:
    return LabelledPrediction(
        file=f"film{number}.png",
        person_group=str(number),
        label=label,
        logit=0.0,
        probability=probability,
        image_id=f"film{number}",
        sha256="",
        role=role,
        plain_logit=0.0,
        spread=None,
        novelty=3.5,
        is_novel=False,
        age_years=None,
        sex=None,
        view_position=None,
        warnings="novel_input",
    )


def test_a_picture_whose_file_has_gone_since_it_was_answered_is_left_out(tmp_path: Path) -> None:
    gallery = Gallery(threshold=0.5)
    (tmp_path / "film1.png").write_bytes(make_png(chest(64, 64)))
    for number in (1, 2):
        candidate = Candidate(prediction(number, 1, 0.9, ""), np.ones((4, 4), np.float32))
        gallery._chosen["uncertain"].append(candidate)
    pictures = gallery.write(tmp_path / "out", tmp_path, PreprocessSpec(size=32))

    assert [picture.image_id for picture in pictures] == ["film1"]
    assert [path.name for path in (tmp_path / "out/gallery").iterdir()] == ["01-uncertain.jpg"]


def test_the_report_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    write_results(tmp_path, [0, 1] * 20, np.linspace(0.1, 0.9, 40).tolist(), [False] * 40)
    html = report(tmp_path).read_text()
    assert html.count("<svg") == 4
    assert "<script" not in html
    assert "<link" not in html
    assert re.findall(r'(?:src|href)="(?!#)', html) == []
    assert re.findall(r"url\((?!#)", html) == []


def test_names_from_the_data_are_text_never_markup(tmp_path: Path) -> None:
    write_results(tmp_path, [0, 1] * 5, np.linspace(0.1, 0.9, 10).tolist(), [False] * 10)
    html = report(tmp_path).read_text()
    assert "a &lt;finding&gt;" in html
    assert "x&lt;y&gt;" in html
    assert "x<y>" not in html


def test_the_same_results_draw_the_same_page(tmp_path: Path) -> None:
    write_results(
        tmp_path, [0, 1] * 20, np.linspace(0.1, 0.9, 40).tolist(), [True] * 10 + [False] * 30
    )
    assert report(tmp_path).read_bytes() == report(tmp_path).read_bytes()


def test_no_two_drawings_share_an_id(tmp_path: Path) -> None:
    write_results(tmp_path, [0, 1] * 20, np.linspace(0.1, 0.9, 40).tolist(), [False] * 40)
    clips = re.findall(r'<clipPath id="([^"]+)"', report(tmp_path).read_text())
    assert len(clips) == len(set(clips))


def test_one_class_alone_still_has_a_report(tmp_path: Path) -> None:
    write_results(tmp_path, [0] * 10, np.linspace(0.1, 0.9, 10).tolist(), [False] * 10)
    html = report(tmp_path).read_text()
    assert "there are no curves to draw" in html
    assert "not measurable" in html


def test_a_set_that_was_all_learned_from_says_so_on_page_and_console(tmp_path: Path) -> None:
    write_results(tmp_path, [0, 1] * 5, np.linspace(0.1, 0.9, 10).tolist(), [True] * 10)
    assert "None of these images is unseen" in report(tmp_path).read_text()
    lines = list(
        summary_lines(
            EvaluationMetrics.model_validate_json((tmp_path / "metrics.json").read_bytes())
        )
    )
    assert any(
        line.startswith("WARNING: the model LEARNED FROM 10 of these 10 images") for line in lines
    )
    assert "UNSEEN images only: none" in lines


def test_the_surest_mistake_comes_first(tmp_path: Path) -> None:
    write_results(tmp_path, [0, 0, 1, 1], [0.6, 0.95, 0.2, 0.9], [False] * 4)
    html = report(tmp_path).read_text()
    assert "3 of 4 wrong at" in html
    assert html.index("film1<") < html.index("film2<") < html.index("film0<")


@pytest.mark.parametrize("missing", ["metrics.json", "predictions.csv"])
def test_a_folder_without_results_is_no_report(tmp_path: Path, missing: str) -> None:
    write_results(tmp_path, [0, 1], [0.1, 0.9], [False] * 2)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError):
        report(tmp_path)


def test_predictions_begin_with_the_columns_that_are_promised(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.csv", [prediction(1, 1, 0.75, "calibrated")])
    head = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert head.startswith("file,person_group,label,logit,probability,")


def test_predictions_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    written = [prediction(1, 1, 0.75, "calibrated"), prediction(2, 0, 1 / 3, "")]
    write_predictions(tmp_path / "predictions.csv", written)
    assert read_predictions(tmp_path / "predictions.csv") == written
