"""GPU.md: what `python -m bench.gpu` measured, and where."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.report import table

_SERVED = {
    "answers a second": ("per_s", "{:.0f}"),
    "p50": ("p50_ms", "{:.0f} ms"),
    "p99": ("p99_ms", "{:.0f} ms"),
    "not answered": ("failed", "{:.0f}"),
    "CPU for an answer": ("cpu_ms", "{:.0f} ms"),
    "start": ("ready_s", "{:.1f} s"),
}


def gpu_page(found: Mapping[str, Any]) -> str:
    """Write the page; what was not measured is left out, or shown as a dash with its reason."""
    return (
        "\n".join([*_head(found), *_graphs(found), *_served(found), *found.get("remarks", ())])
        + "\n"
    )


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    yield "# On a GPU\n"
    yield "Written by `python -m bench.gpu`. Load generators and service share the machine.\n"
    yield from table(("", ""), list(found["machine"].items()))


def _graphs(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## The graphs alone\n"
    yield (
        "Images a second by size of a batch, with two runs at once, as the service has them. `off "
        "by` is the largest "
        "difference of a logit from the CPU's over the golden images; TF32 and fp16 are what "
        "`fast` would take.\n"
    )
    graphs = {
        f"{model} {entry['version']}, {entry['size']} px, {name}": graph
        for model, entry in found.get("models", {}).items()
        for name, graph in entry["graphs"].items()
    }
    sizes = sorted({int(size) for graph in graphs.values() for size in graph.get("batches", {})})
    rows = [
        [
            title,
            f"{graph['off_by']:.1e}" if "off_by" in graph else graph.get("error", "-"),
            *_rates(graph, sizes),
        ]
        for title, graph in graphs.items()
    ]
    yield from table(["", "off by", *(f"n = {size}" for size in sizes)], rows)


def _rates(graph: Mapping[str, Any], sizes: list[int]) -> Iterator[str]:
    for size in sizes:
        rates = graph.get("batches", {}).get(str(size))
        yield f"{rates['lanes_per_s']:,.0f}" if rates else "-"


def _served(found: Mapping[str, Any]) -> Iterator[str]:
    if "decode_per_s" not in found:
        return
    model, decoded = found["model"], found["decode_per_s"]
    batches = found["models"][model]["graphs"].get("fp32", {}).get("batches", {})
    best = max((rate["lanes_per_s"] for rate in batches.values()), default=decoded)
    ceiling = min(best, decoded)
    yield "## Whole answers\n"
    yield (
        f"{model}: the cores decode {decoded:,.0f} a second with a process each, the graph "
        f"answers {best:,.0f}, so "
        f"{ceiling:,.0f} is the ceiling. Percentiles are those of the generator that waited "
        f"longest; the CPU is that of all "
        "the service did, refusals among it.\n"
    )
    rows = [
        [
            workers,
            *_answers(figures),
            f"{figures['per_s'] / ceiling:.2f}" if "per_s" in figures else "-",
        ]
        for workers, figures in found.get("served", {}).items()
    ]
    yield from table(["processes", *_SERVED, "of the ceiling"], rows)
    if views := found.get("views"):
        plain_ms, tta_ms = views["plain_c1_p50_ms"], views["tta_c1_p50_ms"]
        yield (
            f"Four views of one upload take {tta_ms / plain_ms:.1f} times one view "
            f"({tta_ms:.1f} and {plain_ms:.1f} ms).\n"
        )


def _answers(figures: Mapping[str, Any]) -> Iterator[str]:
    if "error" in figures:
        yield from (figures["error"], *("-" for _ in range(len(_SERVED) - 1)))
        return
    for name, form in _SERVED.values():
        yield form.format(figures[name]) if figures.get(name) is not None else "-"
