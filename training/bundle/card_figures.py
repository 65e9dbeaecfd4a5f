"""Sections of the model card that show measured figures."""

from collections.abc import Iterator

from cxr.manifest import Manifest
from cxr.metrics_schema import CalibrationFigures, Figures, Interval, PrecisionFigures
from training.evaluation.ood import novelty_lines
from training.stats.figure_texts import figure_text
from training.stats.localisation import localisation_lines

_POOLS = {"mean": "mean", "lse": "log of the mean exponential"}
_NOT_COMPARED = "it does not segment a lesion and was not compared with radiologists' marks."

_PRECISIONS = {
    "fp16": "`model.fp16.onnx`",
    "int8": "`model.int8.onnx`",
    "bf16": "`CXR_PRECISION=fast`, OpenVINO in bf16",
}


def performance_section(manifest: Manifest) -> Iterator[str]:
    """Write the held-out figures, plain and with TTA, and how thresholds were chosen."""
    plain, tta = manifest.metrics, manifest.metrics.tta
    yield from ("## Performance", "", f"Measured on: {plain.basis}", "")
    yield (
        "Intervals are 95 %: the AUROC's by "
        + (plain.auroc_ci95_method or "nothing, one class")
        + "; rates' by Wilson."
    )
    yield from ("", f"| | plain | TTA `{tta.policy}` |", "|---|---|---|")
    yield (
        f"| images (positive) | {plain.n:,} ({plain.n_positive:,}) | {tta.n:,} "
        f"({tta.n_positive:,}) |"
    )
    auroc = f"{_figure(plain.auroc, plain.auroc_ci95)} | {_figure(tta.auroc, tta.auroc_ci95)}"
    precision = f"{_figure(plain.average_precision)} | {_figure(tta.average_precision)}"
    yield f"| AUROC | {auroc} |"
    yield f"| average precision | {precision} |"
    yield f"| Brier score | {_figure(plain.brier)} | {_figure(tta.brier)} |"
    yield f"| ECE, 15 bins | {_figure(plain.ece)} | {_figure(tta.ece)} |"
    for name, figures in (("Plain", plain), (f"TTA `{tta.policy}`", tta)):
        yield from ("", f"### {name}, by operating point", "")
        yield from _operating_point_table(figures)
    yield from ("", "How each point was chosen:", "")
    for name, point in plain.operating_points.items():
        default = " (default)" if name == manifest.default_operating_point else ""
        yield f"- `{name}`{default}: {point.criterion}"


def _operating_point_table(figures: Figures) -> Iterator[str]:
    yield "| | threshold | accuracy | sensitivity | specificity | PPV | NPV | tn, fp / fn, tp |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, point in figures.operating_points.items():
        (tn, fp), (fn, tp) = point.confusion
        rates = (
            (point.accuracy, point.accuracy_ci95),
            (point.sensitivity, point.sensitivity_ci95),
            (point.specificity, point.specificity_ci95),
            (point.ppv, point.ppv_ci95),
            (point.npv, point.npv_ci95),
        )
        cells = " | ".join(_figure(rate, interval) for rate, interval in rates)
        yield f"| `{name}` | {point.threshold:.4f} | {cells} | {tn}, {fp} / {fn}, {tp} |"


def robustness_section(manifest: Manifest) -> Iterator[str]:
    """Write the figures of corrupted copies."""
    robustness = manifest.metrics.stressed
    if robustness is None:
        return
    yield from ("## Corrupted copies", "")
    yield (
        "The plain view of the same images after a change that another hospital's radiographs "
        "may have; rates at raw logit 0."
    )
    yield from ("", "| | AUROC | sensitivity | specificity |", "|---|---|---|---|")
    for name, found in robustness.stresses.items():
        shown = "unchanged" if name == "none" else name
        yield (
            f"| {shown} | {_figure(found.auroc)} | {_figure(found.sensitivity)} | "
            f"{_figure(found.specificity)} |"
        )
    yield f"| **mean** | {_figure(robustness.auroc)} | | |"


def calibration_section(manifest: Manifest) -> Iterator[str]:
    """Write the calibration, and how well it fits clean images and corrupted copies."""
    yield from ("## Calibration", "")
    yield (
        "`probability = sigmoid(slope * logit + intercept)` (Platt), "
        + (
            "fitted on the images above and on corrupted copies of them together; of the maps that "
            "fit, the least sure."
            if manifest.metrics.recalibration is None
            else "fitted on images of other persons of the same site."
        )
        + " A slope left to fit of 1 is right; below 1 the answers are too sure there."
    )
    yield ""
    if (site := manifest.metrics.recalibration) is not None:
        yield (
            f"**Recalibrated for `{site.site}`** on {site.n_fitted:,} of its images "
            f"({site.n_fitted_positive:,} positive), from version {site.from_version}. On other "
            f"persons of the site: ECE {_figure(site.ece)} (before {_figure(site.ece_before)}), "
            f"Brier score {_figure(site.brier)} (before {_figure(site.brier_before)})."
        )
        yield ""
    tta = manifest.metrics.tta
    yield from _calibration_lines("plain", manifest.metrics.calibration)
    yield from _calibration_lines(tta.policy, tta.calibration)
    yield from (
        "",
        (
            "Probabilities refer to the share of positives in the data above; elsewhere they shift "
            "with prevalence."
        ),
    )


def _calibration_lines(name: str, fit: CalibrationFigures) -> Iterator[str]:
    note = f"; {fit.note}" if fit.note else ""
    honest = fit.cross_fitted
    yield (
        f"- {name}: slope {_figure(fit.slope, fit.slope_ci95)}, "
        f"intercept {_figure(fit.intercept, fit.intercept_ci95)}{note}; "
        f"fitted without the image's person: ECE {_figure(honest.ece)}, on corrupted copies "
        f"{_figure(honest.ece_corrupted)}, Brier score {_figure(honest.brier)}"
    )
    for kind, found in (("clean images", fit.clean), ("corrupted copies", fit.corrupted)):
        if found is not None:
            yield (
                f"  - on {kind}: ECE {_figure(found.ece)}, slope left to fit {_figure(found.slope)}"
            )


def novelty_section(manifest: Manifest) -> Iterator[str]:
    """Write the novelty limits, and what they detect."""
    limits, caught = manifest.novelty, manifest.metrics.novelty
    yield from ("## Novelty", "")
    text = (
        "The graph gives the whitened distance of an image's coarse shape and features from those "
        f"of the training images. Above {limits.warn:.2f} the answer carries a warning, above "
        f"{limits.novel:.2f} it calls the image novel. The two limits are the {limits.source}."
    )
    if caught is not None:
        text += (
            f" Of {caught.edge_images} synthetic images that are no radiographs (flat, ramps, "
            f"noise, checkers, a square), {caught.edge_images_warned} are warned of and "
            f"{caught.edge_images_novel} called novel: a short distance is no proof that an image "
            "is a chest radiograph."
        )
    yield text
    if manifest.metrics.novelty_gate is not None:
        yield from ("", *novelty_lines(manifest.metrics.novelty_gate))


def explanation_section(manifest: Manifest) -> Iterator[str]:
    """Write what the heat map is, and how well it points at segmentation masks."""
    localisation = manifest.metrics.localisation
    yield from ("## Heat map", "")
    yield (
        f"`cam` is the logit itself, spread over the picture: its {_POOLS[manifest.cam.pool]} "
        f"plus {manifest.cam.bias:.6g} is the logit. It shows what moved the answer, coarsely; "
    ) + ("it does not segment a lesion." if localisation else _NOT_COMPARED)
    if localisation is not None:
        yield from (
            "",
            (
                "Compared with the segmentation masks of positive images by networks that had not "
                "seen them:"
            ),
            "",
        )
        yield from localisation_lines(localisation)


def precisions_section(manifest: Manifest) -> Iterator[str]:
    """Write the cost of other precisions; nothing if none was measured."""
    precisions = manifest.metrics.precisions
    if not precisions:
        return
    yield from ("## Other precisions", "")
    yield (
        "Against fp32 in ONNX Runtime, on images that the predicting network had not learned from "
        "(plain view). Allowed if the AUROC moves by at most 0.003 and at most 1 % of labels "
        "change at any operating point; fp16 moreover must not move a probability by more than "
        "0.01, and int8's maps must correlate by 0.95."
    )
    yield from (
        "",
        (
            "| | images | AUROC change | changed labels | largest change of a probability | map "
            "correlation | allowed |"
        ),
    )
    yield "|---|---|---|---|---|---|---|"
    for name, figures in precisions.items():
        allowed = "yes" if figures.allowed else "no: " + "; ".join(figures.refused_for)
        yield f"| {_PRECISIONS[name]} | {_cost_cells(figures)} | {allowed} |"
    if fast := manifest.fast:
        yield from (
            "",
            f"bf16 was measured with {fast.tool} on a processor with {fast.instructions}.",
        )


def _cost_cells(figures: PrecisionFigures) -> str:
    if figures.images is None:
        return " | ".join(5 * ["not measured"])
    change = figures.auroc_change
    return (
        f"{figures.images:,} | {'not measurable' if change is None else f'{change:+.4f}'} | "
        f"{figures.flips:.2%} | {figures.max_probability_change:.4f} | "
        f"{figures.cam_correlation:.4f}"
    )


def _figure(value: float | None, interval: Interval | None = None) -> str:
    return figure_text(value, interval, places=3)
