"""The plots of the report, each as one SVG that stands alone in a page.

Shape suffixes: N images.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from cxr.metrics_schema import OperatingPointFigures
from training.stats.metrics import Floats, Labels01, precision_recall, reliability, roc_curve

POSITIVE_COLOR, NEGATIVE_COLOR, LINE_COLOR, FAINT_COLOR = "#c2410c", "#0f766e", "#1d4ed8", "#94a3b8"

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and found by the browser's search
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#64748b",
    "axes.labelcolor": "#334155",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "grid.linewidth": 0.8,
    "xtick.color": "#64748b",
    "ytick.color": "#64748b",
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def roc_plot(
    label_N: Labels01, probability_N: Floats, points: Mapping[str, OperatingPointFigures]
) -> str:
    """Draw the ROC curve with the operating points on it; needs both classes."""

    def draw(axes: Axes) -> None:
        false_rate, true_rate = roc_curve(label_N, probability_N)
        axes.plot([0, 1], [0, 1], color=FAINT_COLOR, linewidth=1, linestyle="--")
        axes.plot(false_rate, true_rate, color=LINE_COLOR, drawstyle="steps-post")
        for marker, (name, point) in zip("osD^v", points.items(), strict=False):
            axes.plot(
                1 - (point.specificity or 0.0),
                point.sensitivity or 0.0,
                marker,
                color=POSITIVE_COLOR,
                markersize=7,
                label=name,
            )
        axes.set(
            xlabel="1 - specificity",
            ylabel="sensitivity",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )
        axes.legend(loc="lower right")

    return svg_figure("roc", draw)


def precision_recall_plot(label_N: Labels01, probability_N: Floats) -> str:
    """Draw precision over recall, with the share of positives as the floor; needs a positive."""

    def draw(axes: Axes) -> None:
        recall, precision = precision_recall(label_N, probability_N)
        axes.axhline(
            label_N.mean(),
            color=FAINT_COLOR,
            linewidth=1,
            linestyle="--",
            label="share of positives",
        )
        axes.plot(
            np.r_[0.0, recall],
            np.r_[precision[0], precision],
            color=LINE_COLOR,
            drawstyle="steps-pre",
        )
        axes.set(
            xlabel="recall (sensitivity)",
            ylabel="precision (PPV)",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )
        axes.legend(loc="lower left")

    return svg_figure("precision-recall", draw)


def reliability_plot(label_N: Labels01, probability_N: Floats) -> str:
    """Draw the observed frequency over the stated probability, in bins of equal mass."""

    def draw(axes: Axes) -> None:
        stated, observed, sizes = reliability(
            label_N, probability_N, bins=min(15, max(1, len(label_N) // 10))
        )
        axes.plot([0, 1], [0, 1], color=FAINT_COLOR, linewidth=1, linestyle="--")
        axes.vlines(stated, stated, observed, color=FAINT_COLOR, linewidth=1)
        axes.plot(
            stated,
            observed,
            "o",
            color=LINE_COLOR,
            markersize=6,
            label=f"{len(sizes)} bins of about {sizes.mean():.0f} images",
        )
        axes.set(
            xlabel="stated probability",
            ylabel="observed frequency",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )
        axes.legend(loc="upper left")

    return svg_figure("reliability", draw)


def histogram_plot(
    label_N: Labels01, probability_N: Floats, threshold: float, names: tuple[str, str]
) -> str:
    """Draw how probabilities spread over both classes, with the default threshold."""

    def draw(axes: Axes) -> None:
        bins = np.linspace(0, 1, 26).tolist()
        for value, color, name in ((0, NEGATIVE_COLOR, names[0]), (1, POSITIVE_COLOR, names[1])):
            axes.hist(
                probability_N[label_N == value],
                bins=bins,
                color=color,
                alpha=0.6,
                label=f"is {name}",
            )
        axes.axvline(
            threshold, color="#334155", linewidth=1.2, linestyle=":", label="default threshold"
        )
        axes.set(xlabel="stated probability", ylabel="images", xlim=(-0.02, 1.02))
        axes.set_yscale("symlog", linthresh=10)
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=3,
            fontsize=8,
            columnspacing=1.2,
            handlelength=1.4,
        )

    return svg_figure("histogram", draw)


def svg_figure(
    name: str, draw: Callable[[Axes], None], size_inches: tuple[float, float] = (4.6, 4.2)
) -> str:
    """Draw one figure; `name` keeps its internal ids apart from those of its neighbours."""
    style: Any = _STYLE | {"svg.hashsalt": name}  # matplotlib types its keys one by one
    with mpl.rc_context(style):
        figure = Figure(figsize=size_inches, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    return text[text.index("<svg") :]
