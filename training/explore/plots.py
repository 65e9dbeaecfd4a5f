"""The plots of the data report, each as one SVG that stands alone in a page.

Shape suffixes: N images, H rows, W columns, h and w rows and columns of a coarse grid.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from training.explore.lesions import SIZES
from training.html.plots import LINE_COLOR, NEGATIVE_COLOR, POSITIVE_COLOR, svg_figure

Floats = NDArray[np.float64]

_WIDE = (4.6, 3.2)
_SQUARE = (2.6, 2.6)
_BINS = 24


def class_histogram(
    name: str, label_N: NDArray[np.int_], value_N: Floats, unit: str, *, bins: Any = None
) -> str:
    """Draw how a number spreads over both classes, each class as a share of itself."""

    def draw(axes: Axes) -> None:
        edges = np.histogram_bin_edges(value_N, bins=_BINS) if bins is None else bins
        for label, color, called in (
            (0, NEGATIVE_COLOR, "negative"),
            (1, POSITIVE_COLOR, "positive"),
        ):
            mine_N = value_N[label_N == label]
            weight_N = np.full(len(mine_N), 1 / max(1, len(mine_N)))
            options: dict[str, Any] = {"bins": edges, "weights": weight_N, "color": color}
            axes.hist(mine_N, alpha=0.25, **options)
            axes.hist(
                mine_N,
                histtype="step",
                linewidth=1.6,
                label=f"{called} ({len(mine_N):,})",
                **options,
            )
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set(xlabel=unit, ylabel="share of the class")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)

    return svg_figure(name, draw, _WIDE)


def count_bars(name: str, counts: Mapping[str, int], xlabel: str, ylabel: str) -> str:
    """Draw counts as bars, each with its number."""

    def draw(axes: Axes) -> None:
        bars = axes.bar(
            list(counts), list(counts.values()), color=LINE_COLOR, alpha=0.75, width=0.7
        )
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=2)
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.12)
        axes.set(xlabel=xlabel, ylabel=ylabel)

    return svg_figure(name, draw, _WIDE)


def lesion_areas(share_N: Floats) -> str:
    """Draw how much of their image lesions cover, on a logarithmic axis, with the limits between
    small, medium and large.
    """

    def draw(axes: Axes) -> None:
        axes.hist(
            np.maximum(share_N, 1e-5),
            bins=np.geomspace(1e-4, 0.5, _BINS).tolist(),
            color=POSITIVE_COLOR,
            alpha=0.75,
        )
        for low, _ in list(SIZES.values())[1:]:
            axes.axvline(low, color="#334155", linewidth=1, linestyle=":")
        axes.axvline(
            float(np.median(share_N)), color=LINE_COLOR, label=f"median {np.median(share_N):.2%}"
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.set(xlabel="share of the image that the lesion covers", ylabel="images")
        axes.legend(fontsize=8)

    return svg_figure("lesion-areas", draw, _WIDE)


def lesion_places(frequency_hw: Floats, mean_HW: Floats) -> str:
    """Draw the locations of lesions over the mean of the positive images."""

    def draw(axes: Axes) -> None:
        extent = (0.0, 1.0, 1.0, 0.0)
        axes.imshow(mean_HW, cmap="gray", extent=extent, aspect="equal")
        axes.imshow(
            frequency_hw,
            cmap=_heat(),
            extent=extent,
            aspect="equal",
            interpolation="bicubic",
            vmin=0,
        )
        axes.set_axis_off()

    return svg_figure("lesion-places", draw, _WIDE)


def mean_image(name: str, mean_HW: Floats) -> str:
    """Draw a mean image."""

    def draw(axes: Axes) -> None:
        axes.imshow(mean_HW, cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
        axes.set_axis_off()

    return svg_figure(name, draw, _SQUARE)


def difference_image(difference_HW: Floats) -> str:
    """Draw what is brighter (warm) and darker (cold) in the mean positive image than in the mean
    negative one.
    """

    def draw(axes: Axes) -> None:
        reach = max(1.0, float(np.abs(difference_HW).max()))
        axes.imshow(difference_HW, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="bicubic")
        axes.set_axis_off()

    return svg_figure("difference", draw, _SQUARE)


def _heat() -> ListedColormap:
    """Return a colour map from clear to a warm orange."""
    share = np.linspace(0, 1, 256)
    red, green, blue = (int(POSITIVE_COLOR[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return ListedColormap(
        np.stack(
            [np.full(256, red), green + 0.5 * share, np.full(256, blue), 0.85 * share**0.7], axis=1
        )
    )
