"""The plots of a run, as small SVG files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.figures import Figures
from bench.phases import LOADS


def draw_plots(
    servers: Mapping[str, Figures], titles: Mapping[str, str], folder: Path
) -> list[str]:
    """Draw goodput over the offered load, and throughput; gives the files' names."""
    import matplotlib as mpl  # noqa: PLC0415 -- heavy, and only needed when all is measured

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams.update(
        {
            "svg.hashsalt": "bench",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: titles[name].replace("*", "").replace("`", "") for name in servers}
    for file, draw in (("goodput.svg", _goodput), ("throughput.svg", _throughput)):
        figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
        draw(axes, servers, plain)
        figure.savefig(folder / file, metadata={"Date": None})
        plt.close(figure)
    return ["goodput.svg", "throughput.svg"]


def _goodput(axes: Any, servers: Mapping[str, Figures], titles: Mapping[str, str]) -> None:
    for name, figures in servers.items():
        shares = [figures.get(f"x{load:g}_good_share", float("nan")) for load in LOADS]
        axes.plot(
            LOADS,
            shares,
            marker="o",
            markersize=3,
            linewidth=2.2 if name == "ours" else 1,
            label=titles[name],
        )
    axes.plot([0, 1, max(LOADS)], [0, 1, 1], color="0.7", linestyle=":", label="ideal")
    axes.set(
        xlabel="offered load / own capacity",
        ylabel="answers within 500 ms / own capacity",
        ylim=(0, 1.15),
    )
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _throughput(axes: Any, servers: Mapping[str, Figures], titles: Mapping[str, str]) -> None:
    order = sorted(servers, key=lambda name: servers[name]["c16_per_s"])
    axes.barh(
        [titles[name] for name in order],
        [servers[name]["c16_per_s"] for name in order],
        color="#4878a8",
    )
    axes.set(xlabel="answers a second at 16 connections")
