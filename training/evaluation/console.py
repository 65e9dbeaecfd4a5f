"""The essentials of an evaluation in a few lines for the console."""

from collections.abc import Iterator, Mapping
from typing import Any

from training.stats.format import figure_text


def summary_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Return the main figures as lines for the console."""
    seen = metrics["n_seen"]
    yield (
        f"{metrics['bundle']['model']} {metrics['bundle']['version']} ({metrics['reading']}) "
        f"on {metrics['data']['name']}"
    )
    if metrics["unreadable"]:
        yield f"{len(metrics['unreadable'])} images could not be read; report.html lists them"
    if metrics["n_missing"]:
        yield f"{metrics['n_missing']} images of the table are not in the folder"
    if seen:
        yield (
            f"WARNING: the model LEARNED FROM {seen:,} of these {metrics['n']:,} images: "
            f"figures over all of them flatter it"
        )
    yield from _console_figures("all images", metrics)
    if metrics.get("unseen"):
        yield from _console_figures("UNSEEN images only", metrics["unseen"])
    if gate := metrics.get("novelty_gate"):
        yield (
            f"novelty gate, measured against {gate['radiographs']['n']:,} {gate['basis']}; "
            f"over its first limit:"
        )
        origins = {"these radiographs": gate["radiographs"], **gate["origins"]}
        yield "  " + ", ".join(
            f"{name} {figures['warned']:.1%} of {figures['n']:,}"
            for name, figures in origins.items()
        )


def _console_figures(title: str, figures: Mapping[str, Any]) -> Iterator[str]:
    if not figures["n"]:
        yield f"{title}: none"
        return
    yield (
        f"{title}: n {figures['n']:,} ({figures['n_positive']:,} positive), AUROC "
        f"{figure_text(figures, 'auroc')}, "
        f"AP {figure_text(figures, 'average_precision')}, ECE {figure_text(figures, 'ece')}"
    )
    for name, point in figures["operating_points"].items():
        default = "*" if name == figures["default_operating_point"] else " "
        rates = ", ".join(
            f"{rate} {figure_text(point, rate)}"
            for rate in ("accuracy", "sensitivity", "specificity")
        )
        yield (
            f" {default} {name:9} p >= {point['threshold']:.4f}: {rates}, [[tn, fp], [fn, tp]] "
            f"{point['confusion']}"
        )
