"""Measure how well a bundle detects images that are no upright frontal chest radiographs.

Two detectors are measured as the service applies them: `novelty`, the graph's distance from the
training images, and the rules of `cxr.appearance`.

Shape suffixes: N radiographs, M OOD images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.appearance import appearance_warnings
from cxr.bundle import Bundle
from cxr.errors import ImageError
from cxr.graph import Graph
from cxr.interpret import NoveltyLimits
from cxr.tta import PLAIN
from training.evaluation.ood_images import (
    Grey,
    OodImage,
    by_kind,
    count_objects,
    find_ood_images,
    make_ood_images,
    turn,
)
from training.evaluation.predict import predict
from training.stats.metrics import Floats, auroc

TURNED_RADIOGRAPHS = 100
"""Radiographs that are shown in wrong ways, spread evenly over those that there are."""

_TOTALS = {
    "made": "all made",
    "turned": "all turned",
    "found": "all found, out of scope by their header",
}
_STILL_CHESTS = {
    "chest": " (a chest by its header: may be what it seems)",
    "coarse": " (the same chests, badly compressed: should pass)",
}


@dataclass(frozen=True, slots=True)
class Radiographs:
    """Radiographs that should pass, as model inputs. `basis` describes them in the words of a
    sentence.
    """

    images: Sequence[Grey]
    basis: str
    novelty_N: Floats | None = None
    """Their distances by networks that did not learn from them; None takes the graph's own."""


def measure_novelty(
    bundle: Bundle, graph: Graph, radiographs: Radiographs, folders: Sequence[Path] = ()
) -> dict[str, Any]:
    """Measure the gate on radiographs that should pass and on OOD images that should not.

    Args:
        bundle: the bundle whose limits apply.
        graph: its graph.
        radiographs: images that should pass.
        folders: folders of real OOD images.

    Returns:
        The value of `novelty_gate` in `metrics.json`. For the radiographs, each kind of OOD image
        and each origin: `n`, `n_objects` (different things), `auroc` of the distance against the
        radiographs, and the shares over the limits (`warned`, `novel`) and with any warning of the
        gate (`flagged`).
    """
    spec, images = bundle.manifest.preprocess, radiographs.images
    found = [image for folder in folders for image in find_ood_images(folder, spec)]
    chosen = np.unique(
        np.linspace(0, len(images) - 1, min(TURNED_RADIOGRAPHS, len(images))).astype(int)
    )
    foreign = [
        *make_ood_images(spec),
        *(image for number, place in enumerate(chosen) for image in turn(images[place], number)),
        *(image for image in found if isinstance(image, OodImage)),
    ]
    own_N, looks_N = _look(graph, images)
    novelty_N = own_N if radiographs.novelty_N is None else radiographs.novelty_N
    novelty_M, looks_M = _look(graph, [image.image_HW for image in foreign])

    def figures(places: Sequence[int]) -> dict[str, Any]:
        return {
            "n_objects": count_objects([foreign[place].image_HW for place in places]),
            "auroc": _auroc_of(novelty_M[places], novelty_N),
            **_shares(novelty_M[places], looks_M[places], bundle.manifest.novelty),
        }

    return {
        "basis": radiographs.basis,
        "radiographs": _shares(novelty_N, looks_N, bundle.manifest.novelty),
        "kinds": {
            kind: {"origin": foreign[places[0]].origin, **figures(places)}
            for kind, places in by_kind(foreign).items()
        },
        "origins": {
            name: figures(places)
            for origin, name in _TOTALS.items()
            if (places := [place for place, image in enumerate(foreign) if image.origin == origin])
        },
        "n_unreadable": sum(isinstance(image, ImageError) for image in found),
    }


def novelty_lines(gate: Mapping[str, Any]) -> Iterator[str]:
    """Write the figures as a Markdown table."""
    own = gate["radiographs"]
    yield f"Measured against {own['n']:,} {gate['basis']}."
    yield (
        "`warned` and `novel` are over the two limits; `flagged` has any warning of the gate, "
        "the rules about greys included."
    )
    yield from (
        "",
        "| | images | different things | AUROC | warned | novel | flagged |",
        "|---|---|---|---|---|---|---|",
    )
    yield f"| these radiographs | {own['n']:,} | | | {_percents(own)} |"
    for name, figures in (
        *gate["kinds"].items(),
        *((f"**{name}**", each) for name, each in gate["origins"].items()),
    ):
        remark = _STILL_CHESTS.get(figures.get("origin", ""), "")
        area = "" if figures["auroc"] is None else f"{figures['auroc']:.3f}"
        yield (
            f"| {name}{remark} | {figures['n']:,} | {figures['n_objects']:,} | {area} | "
            f"{_percents(figures)} |"
        )


def _percents(figures: Mapping[str, Any]) -> str:
    return " | ".join(f"{figures[name]:.1%}" for name in ("warned", "novel", "flagged"))


def _look(graph: Graph, images: Sequence[Grey]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return each image's distance, and whether the rules about grey values raise a warning."""
    novelty = [
        float(outputs.novelty_N[0]) for _, outputs in predict(graph, enumerate(images), (PLAIN,))
    ]
    looks = [any(True for _ in appearance_warnings(image_HW)) for image_HW in images]
    return np.array(novelty, dtype=np.float64), np.array(looks, dtype=np.bool_)


def _shares(novelty: Floats, looks: NDArray[np.bool_], limits: NoveltyLimits) -> dict[str, Any]:
    warned = novelty > limits.warn
    return {
        "n": len(novelty),
        "warned": float(warned.mean()),
        "novel": float((novelty > limits.novel).mean()),
        "flagged": float((warned | looks).mean()),
    }


def _auroc_of(novelty_M: Floats, novelty_N: Floats) -> float | None:
    label = np.r_[np.ones(len(novelty_M), dtype=np.int_), np.zeros(len(novelty_N), dtype=np.int_)]
    return auroc(label, np.r_[novelty_M, novelty_N])
