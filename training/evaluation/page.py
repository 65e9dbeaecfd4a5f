"""The evaluation's page: one HTML file that needs nothing else.

It needs only metrics.json, predictions.csv and the pictures of gallery/, so it can be written again
without running the model.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from pydantic import ValidationError

from cxr.evaluation_schema import EvaluationMetrics, Picture
from cxr.metrics_schema import Figures
from training.data import DataError
from training.evaluation.gallery import KINDS
from training.evaluation.prediction import LabelledPrediction, read_predictions
from training.evaluation.subgroups import MIN_POSITIVES
from training.html.document import render, svg
from training.html.plots import histogram_plot, precision_recall_plot, reliability_plot, roc_plot

_MAX_MISTAKES = 20
_MAX_UNREADABLE = 200


def report(out_dir: Path) -> Path:
    """Write `out_dir/report.html` from metrics.json and predictions.csv in the same folder. Return
    its path.

    Raises `DataError` if one of the two is of another version.
    """
    text = (out_dir / "metrics.json").read_bytes()
    try:
        metrics = EvaluationMetrics.model_validate_json(text)
    except ValidationError as exc:
        raise DataError(f"{out_dir}/metrics.json is of another version; evaluate again") from exc
    path = out_dir / "report.html"
    page = _page(metrics, read_predictions(out_dir / "predictions.csv"), out_dir)
    path.write_text(page, encoding="utf-8")
    return path


@dataclass(frozen=True, slots=True)
class _ShownPicture:
    """A picture of the gallery, within the page."""

    kind_number: int
    heading: str
    base64: str
    caption: str


def _page(
    metrics: EvaluationMetrics, predictions: Sequence[LabelledPrediction], folder: Path
) -> str:
    shown = metrics.honest
    looked_at = predictions
    if shown is not metrics:
        looked_at = [prediction for prediction in predictions if prediction.is_unseen]
    warnings = Counter(code for each in predictions for code in each.warnings.split())
    return render(
        "evaluation.html",
        title=f"{metrics.bundle.model} {metrics.bundle.version} on {metrics.data.name}",
        metrics=metrics,
        shown=shown,
        drawings=_drawings(shown, looked_at),
        columns=_columns(metrics),
        min_positives=MIN_POSITIVES,
        pictures=[_shown(picture, folder) for picture in metrics.gallery],
        warnings=warnings.most_common(),
        mistakes=_mistakes(metrics, looked_at),
        looked_at=len(looked_at),
        max_mistakes=_MAX_MISTAKES,
        max_unreadable=_MAX_UNREADABLE,
    )


def _drawings(
    figures: Figures, predictions: Sequence[LabelledPrediction]
) -> list[tuple[str, Markup]]:
    """Draw the curves; none if the images are all of one class."""
    label_N = np.array([each.label for each in predictions], dtype=np.int_)
    probability_N = np.array([each.probability for each in predictions], dtype=np.float64)
    if len(set(label_N.tolist())) < 2:
        return []
    threshold = figures.default_point.threshold
    names = ("negative", "positive")
    return [
        ("ROC", svg(roc_plot(label_N, probability_N, figures.operating_points))),
        ("Precision and recall", svg(precision_recall_plot(label_N, probability_N))),
        ("Reliability", svg(reliability_plot(label_N, probability_N))),
        ("Probabilities by label", svg(histogram_plot(label_N, probability_N, threshold, names))),
    ]


def _columns(metrics: EvaluationMetrics) -> dict[str, Figures]:
    """Return the columns of the table of figures, by their headings."""
    if not metrics.n_seen:
        return {"all images": metrics}
    everything: dict[str, Figures] = {"all images, learned-from included": metrics}
    if metrics.unseen is None or not metrics.unseen.n:
        return everything
    return {"unseen images": metrics.unseen} | everything


def _mistakes(
    metrics: EvaluationMetrics, predictions: Sequence[LabelledPrediction]
) -> list[LabelledPrediction]:
    """Return the wrong answers at the default operating point, the surest first."""
    threshold = metrics.default_point.threshold
    wrong = [each for each in predictions if (each.probability >= threshold) != bool(each.label)]
    return sorted(wrong, key=lambda each: -abs(each.probability - each.label))


def _shown(picture: Picture, folder: Path) -> _ShownPicture:
    label = "positive" if picture.label else "negative"
    return _ShownPicture(
        kind_number=list(KINDS).index(picture.kind),
        heading=KINDS[picture.kind],
        base64=b64encode((folder / picture.file).read_bytes()).decode(),
        caption=f"{picture.image_id}: is {label}, p = {picture.probability:.3f}",
    )
