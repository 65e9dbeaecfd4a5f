"""The evaluation's page: one HTML file that needs nothing else.

It needs only metrics.json, predictions.csv and the pictures of gallery/, so it can be written again
without running the model.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from training.data.index import read_table
from training.evaluation.breakdown_page import gallery, subgroup_table, tta_table
from training.html.document import html_page, table, table_row
from training.html.plots import histogram_plot, precision_recall_plot, reliability_plot, roc_plot
from training.stats.format import figure_text, interval_text

Row = Mapping[str, str]

_RATES = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
_MAX_MISTAKES = 20
_MAX_UNREADABLE = 200


def report(out_dir: Path) -> Path:
    """Write `out_dir/report.html` from metrics.json and predictions.csv in the same folder. Return
    its path.
    """
    metrics = json.loads((out_dir / "metrics.json").read_text(encoding="utf-8"))
    rows = read_table(out_dir / "predictions.csv")
    path = out_dir / "report.html"
    path.write_text(_page(metrics, rows, out_dir), encoding="utf-8")
    return path


def _page(metrics: Mapping[str, Any], rows: Sequence[Row], folder: Path) -> str:
    bundle = metrics["bundle"]
    title = f"{bundle['model']} {bundle['version']} on {metrics['data']['name']}"
    body = "".join(
        (
            _header(title, metrics),
            _tiles(metrics),
            _plots(metrics, rows),
            _figures_table(metrics),
            _confusions(metrics),
            tta_table(metrics.get("tta_effect")),
            subgroup_table(metrics["subgroups"]),
            gallery(metrics["gallery"], folder),
            _warnings(rows),
            _mistakes(metrics, rows),
            _unreadable(metrics["unreadable"]),
            _footer(metrics),
        )
    )
    return html_page(title, body)


def _header(title: str, metrics: Mapping[str, Any]) -> str:
    profile = (
        "plain images"
        if metrics["reading"] == "plain"
        else f"test-time augmentation, policy {metrics['reading']}"
    )
    return (
        f"<header><p class=kicker>Evaluation of the exported bundle</p><h1>{escape(title)}</h1>"
        f"<p>Finding: {escape(metrics['finding'])}. Reading: {escape(profile)}. For research, not "
        f"for diagnosis.</p></header>\n"
        f"{_alarm(metrics)}"
    )


def _alarm(metrics: Mapping[str, Any]) -> str:
    if not metrics["n_seen"]:
        return ""
    unseen = metrics["unseen"]["n"]
    rest = (
        f"The plots and the first figures below are of the {unseen:,} unseen images; the table "
        f"has both."
        if unseen
        else "None of these images is unseen, so nothing below says how well the model does on "
        "new ones."
    )
    return (
        f"<p class=alarm><strong>The model learned from {metrics['n_seen']:,} of these "
        f"{metrics['n']:,} images.</strong> "
        f"Figures over all of them flatter it. {rest}</p>\n"
    )


def _honest(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures to show first: those of the unseen images, if there are any."""
    unseen = metrics.get("unseen")
    return unseen if unseen and unseen["n"] else metrics


def _honest_rows(metrics: Mapping[str, Any], rows: Sequence[Row]) -> Sequence[Row]:
    return rows if _honest(metrics) is metrics else [row for row in rows if row["role"] != "fitted"]


def _tiles(metrics: Mapping[str, Any]) -> str:
    figures = _honest(metrics)
    point = figures["operating_points"][figures["default_operating_point"]]
    tiles = (
        ("AUROC", figure_text(figures, "auroc", interval=False), interval_text(figures, "auroc")),
        (
            "Accuracy",
            figure_text(point, "accuracy", interval=False),
            interval_text(point, "accuracy"),
        ),
        (
            "Sensitivity",
            figure_text(point, "sensitivity", interval=False),
            interval_text(point, "sensitivity"),
        ),
        (
            "Specificity",
            figure_text(point, "specificity", interval=False),
            interval_text(point, "specificity"),
        ),
        ("ECE", figure_text(figures, "ece"), "calibration error"),
        ("Images", f"{figures['n']:,}", f"{figures['n_positive']:,} positive"),
    )
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><small>{note}</small></div>"
        for name, value, note in tiles
    )
    chosen = (
        f"Rates at the default operating point "
        f"<code>{escape(figures['default_operating_point'])}</code>"
    )
    return (
        f"<dl class=tiles>{cells}</dl>\n<p class=note>{chosen}, p &ge; "
        f"{point['threshold']:.4f}.</p>\n"
    )


def _plots(metrics: Mapping[str, Any], rows: Sequence[Row]) -> str:
    figures, shown = _honest(metrics), _honest_rows(metrics, rows)
    label_N = np.array([int(row["label"]) for row in shown], dtype=np.int_)
    probability_N = np.array([float(row["probability"]) for row in shown], dtype=np.float64)
    if len(set(label_N.tolist())) < 2:
        return "<p>The images are all of one class: there are no curves to draw.</p>\n"
    points = figures["operating_points"]
    threshold = points[figures["default_operating_point"]]["threshold"]
    drawings = (
        ("ROC", roc_plot(label_N, probability_N, points)),
        ("Precision and recall", precision_recall_plot(label_N, probability_N)),
        ("Reliability", reliability_plot(label_N, probability_N)),
        (
            "Probabilities by label",
            histogram_plot(label_N, probability_N, threshold, ("negative", "positive")),
        ),
    )
    cells = "".join(
        f"<figure>{svg}<figcaption>{name}</figcaption></figure>" for name, svg in drawings
    )
    return f"<section class=plots>{cells}</section>\n"


def _figures_table(metrics: Mapping[str, Any]) -> str:
    columns = _columns(metrics)
    lines = [
        table_row(
            "images (positive)",
            [f"{figures['n']:,} ({figures['n_positive']:,})" for figures in columns.values()],
        ),
        table_row(
            "person groups", [f"{figures['n_person_groups']:,}" for figures in columns.values()]
        ),
    ]
    for key, name in (
        ("auroc", "AUROC"),
        ("average_precision", "average precision"),
        ("brier", "Brier score"),
        ("ece", "ECE"),
    ):
        lines.append(table_row(name, [figure_text(figures, key) for figures in columns.values()]))
    points = "".join(
        f"<h3>Operating points, {name}</h3>{table(_point_rows(figures), head=_POINT_HEAD)}"
        for name, figures in columns.items()
    )
    method = metrics["auroc_ci95_method"] or "not measurable"
    return (
        f"<section><h2>Figures</h2>{table(lines, head=table_row('', columns))}{points}"
        f"<p class=note>{escape(metrics['basis'])}. Intervals are 95 %. AUROC: {escape(method)}; "
        f"rates: Wilson.</p></section>\n"
    )


def _columns(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    unseen = metrics.get("unseen")
    return ({"unseen images": unseen} if unseen and unseen["n"] else {}) | {_all(metrics): metrics}


def _all(metrics: Mapping[str, Any]) -> str:
    return "all images, learned-from included" if metrics["n_seen"] else "all images"


_POINT_HEAD = table_row("", ("threshold", "accuracy", "sensitivity", "specificity", "PPV", "NPV"))


def _point_rows(figures: Mapping[str, Any]) -> Iterator[str]:
    for name, point in figures["operating_points"].items():
        default = " (default)" if name == figures["default_operating_point"] else ""
        yield table_row(
            escape(name) + default, [_rate(point, key) for key in ("threshold", *_RATES)]
        )


def _rate(point: Mapping[str, Any], key: str) -> str:
    bounds = interval_text(point, key)
    return figure_text(point, key, interval=False) + (
        f"<br><small>{bounds}</small>" if bounds else ""
    )


def _confusions(metrics: Mapping[str, Any]) -> str:
    figures = _honest(metrics)
    cells = "".join(_confusion(name, point) for name, point in figures["operating_points"].items())
    return f"<section><h2>Confusion matrices</h2><div class=matrices>{cells}</div></section>\n"


def _confusion(name: str, point: Mapping[str, Any]) -> str:
    rows = []
    for label, counts in zip(("negative", "positive"), point["confusion"], strict=True):
        shares = [count / max(1, sum(counts)) for count in counts]
        cells = "".join(
            f'<td style="background:rgba(29,78,216,{0.08 + 0.5 * share:.2f})">'
            f"<b>{count:,}</b><br>{share:.1%}</td>"
            for count, share in zip(counts, shares, strict=True)
        )
        rows.append(f"<tr><th>is {label}</th>{cells}</tr>")
    return (
        f"<table class=matrix><caption>{escape(name)}<br><small>p &ge; "
        f"{point['threshold']:.4f}</small></caption>"
        f"<tr><th></th><th>called negative</th><th>called positive</th></tr>{''.join(rows)}</table>"
    )


def _warnings(rows: Sequence[Row]) -> str:
    counts = Counter(code for row in rows for code in row["warnings"].split())
    if not counts:
        return "<section><h2>Warnings</h2><p>No image raised a warning.</p></section>\n"
    lines = (
        table_row(f"<code>{escape(code)}</code>", [f"{count:,} images"])
        for code, count in counts.most_common()
    )
    return f"<section><h2>Warnings</h2>{table(lines)}</section>\n"


def _mistakes(metrics: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """List the surest wrong answers at the default operating point."""
    threshold = metrics["operating_points"][metrics["default_operating_point"]]["threshold"]
    looked_at = _honest_rows(metrics, rows)
    wrong = [
        row
        for row in looked_at
        if (float(row["probability"]) >= threshold) != (row["label"] == "1")
    ]
    wrong.sort(key=lambda row: -abs(float(row["probability"]) - int(row["label"])))
    if not wrong:
        return ""
    shown = wrong[:_MAX_MISTAKES]
    lines = (
        f"<tr><td>{escape(row['image_id'])}</td>"
        f"<td>{'positive' if row['label'] == '1' else 'negative'}</td>"
        f"<td>{float(row['probability']):.4f}</td><td>{float(row['novelty']):.1f}</td></tr>"
        for row in shown
    )
    head = "<tr><th>image</th><th>label</th><th>probability</th><th>novelty</th></tr>"
    name = escape(metrics["default_operating_point"])
    return (
        f"<section><h2>Surest mistakes</h2><p class=note>{len(wrong):,} of {len(looked_at):,} "
        f"wrong at <code>{name}</code>; "
        f"the {len(shown)} furthest from their label.</p>{table(lines, head=head)}</section>\n"
    )


def _unreadable(items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return "<section><h2>Images that could not be read</h2><p>None.</p></section>\n"
    lines = (
        f"<tr><td>{escape(item['image_id'])}</td><td><code>{escape(item['code'])}</code></td><td>{escape(item['detail'])}</td></tr>"
        for item in items[:_MAX_UNREADABLE]
    )
    more = (
        f"<p class=note>and {len(items) - _MAX_UNREADABLE:,} more</p>"
        if len(items) > _MAX_UNREADABLE
        else ""
    )
    return (
        f"<section><h2>Images that could not be read ({len(items):,})</h2><p class=note>They are "
        f"in no figure above.</p>"
        f"{table(lines)}{more}</section>\n"
    )


def _footer(metrics: Mapping[str, Any]) -> str:
    return (
        f"<footer>Graph <code>{metrics['bundle']['sha256'][:16]}</code>, data "
        f"<code>{metrics['data']['sha256'][:16]}</code>. "
        "Measured with the exported graph in ONNX Runtime, through the code that serves.</footer>\n"
    )
