"""The main figures of an evaluation as a few lines for the console."""

from collections.abc import Iterator

from cxr.evaluation_schema import EvaluationMetrics
from cxr.metrics_schema import Figures, NoveltyGate
from training.stats.figure_texts import figure_text


def summary_lines(metrics: EvaluationMetrics) -> Iterator[str]:
    """Return the main figures as lines for the console."""
    bundle = metrics.bundle
    yield f"{bundle.model} {bundle.version} ({metrics.reading}) on {metrics.data.name}"
    if metrics.unreadable:
        yield f"{len(metrics.unreadable)} images could not be read; report.html lists them"
    if metrics.n_missing:
        yield f"{metrics.n_missing} images of the table are not in the folder"
    if metrics.n_seen:
        yield (
            f"WARNING: the model LEARNED FROM {metrics.n_seen:,} of these {metrics.n:,} images: "
            f"figures over all of them flatter it"
        )
    yield from _figures("all images", metrics)
    if metrics.unseen:
        yield from _figures("UNSEEN images only", metrics.unseen)
    if metrics.novelty_gate:
        yield from _gate(metrics.novelty_gate)


def _figures(title: str, figures: Figures) -> Iterator[str]:
    if not figures.n:
        yield f"{title}: none"
        return
    yield (
        f"{title}: n {figures.n:,} ({figures.n_positive:,} positive), AUROC "
        f"{figure_text(figures.auroc, figures.auroc_ci95)}, "
        f"AP {figure_text(figures.average_precision)}, ECE {figure_text(figures.ece)}"
    )
    for name, point in figures.operating_points.items():
        default = "*" if name == figures.default_operating_point else " "
        yield (
            f" {default} {name:9} p >= {point.threshold:.4f}: "
            f"accuracy {figure_text(point.accuracy, point.accuracy_ci95)}, "
            f"sensitivity {figure_text(point.sensitivity, point.sensitivity_ci95)}, "
            f"specificity {figure_text(point.specificity, point.specificity_ci95)}, "
            f"[[tn, fp], [fn, tp]] {point.confusion}"
        )


def _gate(gate: NoveltyGate) -> Iterator[str]:
    own = gate.radiographs
    yield f"novelty gate, measured against {own.n:,} {gate.basis}; over its first limit:"
    origins = {"these radiographs": own, **gate.origins}
    yield "  " + ", ".join(
        f"{name} {figures.warned:.1%} of {figures.n:,}" for name, figures in origins.items()
    )
