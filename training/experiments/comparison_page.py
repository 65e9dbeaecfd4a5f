"""The page of a comparison: one HTML file that needs nothing else."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from training.experiments.comparison import Comparison, Pair
from training.html.document import render, svg
from training.html.plots import FAINT_COLOR, LINE_COLOR, svg_figure

_NAMES = {
    "auroc": "AUROC",
    "stressed_auroc": "AUROC, plain and corrupted",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def comparison_page(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    drawings = [
        (_NAMES[measure], svg(_forest(comparison.pairs, measure)))
        for measure in comparison.measures
    ]
    return render(
        "comparison.html",
        title=f"{comparison.recipe['name']}: {', '.join(comparison.variants)}",
        comparison=comparison,
        names=_NAMES,
        drawings=drawings,
        seeds=list(next(iter(comparison.variants.values())).by_seed),
    )


def _forest(pairs: Sequence[Pair], measure: str) -> str:
    def draw(axes: Axes) -> None:
        axes.axvline(0, color=FAINT_COLOR, linewidth=1, linestyle="--")
        places = np.arange(len(pairs))[::-1]
        for place, pair in zip(places, pairs, strict=True):
            difference = pair.difference[measure]
            axes.plot(difference.ci95, [place, place], color=LINE_COLOR, solid_capstyle="butt")
            axes.plot(difference.value, place, "o", color=LINE_COLOR, markersize=7)
        axes.set_yticks(places.tolist(), [f"{pair.one}\nminus {pair.other}" for pair in pairs])
        axes.set(xlabel="difference", ylim=(-0.6, len(pairs) - 0.4))
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(4))

    return svg_figure(f"difference-{measure}", draw, (4.6, 1.1 + 0.6 * len(pairs)))
