"""The page of a comparison: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from training.html.document import html_page, table, table_row
from training.html.plots import FAINT_COLOR, LINE_COLOR, svg_figure

_NAMES = {
    "auroc": "AUROC",
    "stressed_auroc": "AUROC, plain and stressed",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """Return the page for what comparison.json holds."""
    recipe = comparison["recipe"]
    title = f"{recipe['name']}: {', '.join(comparison['variants'])}"
    body = (
        f"<header><p class=kicker>Treatments of the imbalance, compared</p><h1>{escape(title)}</h1>"
        f"<p>{escape(comparison['basis'])}</p></header>\n"
        f"<p class=alarm><strong>{escape(comparison['verdict'])}</strong></p>\n"
        f"{_arms(comparison)}{_differences(comparison)}{_matrices(comparison)}{_mcnemar(comparison)}{_footer(comparison)}"
    )
    return html_page(title, body)


def _arms(comparison: Mapping[str, Any]) -> str:
    rows = [
        table_row(
            escape(variant),
            [*(_mean(figures, measure) for measure in comparison["measures"]), _steps(figures)],
        )
        for variant, figures in comparison["variants"].items()
    ]
    head = table_row("", [*(_NAMES[measure] for measure in comparison["measures"]), "steps"])
    note = (
        "Mean over seeds, its 95 % interval, and the seeds' range. Rates at logit 0. Recipes "
        "are chosen by the second column."
    )
    return (
        f"<section><h2>The variants</h2>{table(rows, head=head)}<p "
        f"class=note>{note}</p></section>\n"
    )


def _mean(figures: Mapping[str, Any], measure: str) -> str:
    mean, seeds = (
        figures["mean"][measure],
        [model[measure] for model in figures["by_seed"].values()],
    )
    low, high = mean["ci95"]
    return (
        f"{mean['value']:.4f}<br><small>{low:.3f} to {high:.3f}<br>seeds {min(seeds):.3f} to "
        f"{max(seeds):.3f}</small>"
    )


def _steps(figures: Mapping[str, Any]) -> str:
    return f"{next(iter(figures['by_seed'].values()))['steps']:,}"


def _differences(comparison: Mapping[str, Any]) -> str:
    drawings = "".join(
        f"<figure>{_forest(comparison['pairs'], measure)}"
        f"<figcaption>{_NAMES[measure]}</figcaption></figure>"
        for measure in comparison["measures"]
    )
    note = (
        "First variant minus second, paired; an interval that crosses the line leaves the "
        "question open. "
        "Nothing is corrected for there being several differences."
    )
    return (
        f"<section><h2>The differences</h2><p class=note>{note}</p><section "
        f"class=plots>{drawings}</section></section>\n"
    )


def _forest(pairs: Sequence[Mapping[str, Any]], measure: str) -> str:
    def draw(axes: Axes) -> None:
        axes.axvline(0, color=FAINT_COLOR, linewidth=1, linestyle="--")
        places = np.arange(len(pairs))[::-1]
        for place, pair in zip(places, pairs, strict=True):
            low, high = pair["difference"][measure]["ci95"]
            axes.plot([low, high], [place, place], color=LINE_COLOR, solid_capstyle="butt")
            axes.plot(
                pair["difference"][measure]["value"], place, "o", color=LINE_COLOR, markersize=7
            )
        axes.set_yticks(
            places.tolist(), [f"{pair['one']}\nminus {pair['other']}" for pair in pairs]
        )
        axes.set(xlabel="difference", ylim=(-0.6, len(pairs) - 0.4))
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(4))

    return svg_figure(f"difference-{measure}", draw, (4.6, 1.1 + 0.6 * len(pairs)))


def _matrices(comparison: Mapping[str, Any]) -> str:
    cells = "".join(
        _matrix(f"{variant}, seed {seed}", model["confusion"])
        for variant, figures in comparison["variants"].items()
        for seed, model in figures["by_seed"].items()
    )
    return f"<section><h2>Confusion matrices</h2><div class=matrices>{cells}</div></section>\n"


def _matrix(name: str, confusion: Sequence[Sequence[int]]) -> str:
    rows = []
    for label, counts in zip(("negative", "positive"), confusion, strict=True):
        shares = [count / max(1, sum(counts)) for count in counts]
        cells = "".join(
            f'<td style="background:rgba(29,78,216,{0.08 + 0.5 * share:.2f})">'
            f"<b>{count:,}</b><br>{share:.1%}</td>"
            for count, share in zip(counts, shares, strict=True)
        )
        rows.append(f"<tr><th>is {label}</th>{cells}</tr>")
    head = "<tr><th></th><th>called negative</th><th>called positive</th></tr>"
    return f"<table class=matrix><caption>{escape(name)}</caption>{head}{''.join(rows)}</table>"


def _mcnemar(comparison: Mapping[str, Any]) -> str:
    rows = [
        table_row(
            f"{escape(pair['one'])} against {escape(pair['other'])}",
            [_test(test) for test in pair["mcnemar"]],
        )
        for pair in comparison["pairs"]
    ]
    seeds = next(iter(comparison["variants"].values()))["by_seed"]
    note = (
        "How many images only the first, and only the second, decides rightly at logit 0; "
        "exact two-sided p (McNemar)."
    )
    head = table_row("", [f"seed {seed}" for seed in seeds])
    return (
        f"<section><h2>Decisions</h2>{table(rows, head=head)}<p class=note>{note}</p></section>\n"
    )


def _test(test: Mapping[str, Any]) -> str:
    p_value = f"= {test['p_value']:.3f}" if test["p_value"] >= 0.001 else "&lt; 0.001"
    return f"{test['only_one_right']} : {test['only_other_right']}<br><small>p {p_value}</small>"


def _footer(comparison: Mapping[str, Any]) -> str:
    data = comparison["data"]
    return (
        f"<footer>Data <code>{data['sha256'][:16]}</code>, split "
        f"<code>{data['splits_sha256'][:16]}</code>. Logits of the "
        "trained networks themselves; a bundle's figures come from its exported graph.</footer>\n"
    )
