"""Measure how well a bundle detects images that are no upright frontal chest radiographs.

Two detectors are measured as the service applies them: `novelty`, the graph's distance from the
training images, and the rules of `cxr.appearance`.

Shape suffixes: N radiographs, M OOD images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.appearance import appearance_warnings
from cxr.bundle import Bundle
from cxr.errors import ImageError
from cxr.graph import Graph
from cxr.interpret import NoveltyLimits
from cxr.metrics_schema import NoveltyGate, NoveltyShares, OodFigures
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
    """Radiographs that should pass, collected while a bundle answers them.

    Of the images only those are kept that are shown in wrong ways later.
    """

    expected: int
    """How many radiographs will be added at most."""
    novelty: list[float] = field(default_factory=list)
    is_odd: list[bool] = field(default_factory=list)
    """Whether the rules about grey values raise a warning."""
    samples: list[Grey] = field(default_factory=list)

    def add(self, image_HW: Grey, novelty: float) -> None:
        """Add a radiograph, as the model's input, with its novelty."""
        if len(self.novelty) in self._sampled:
            self.samples.append(image_HW)
        self.novelty.append(novelty)
        self.is_odd.append(_looks_odd(image_HW))

    @property
    def _sampled(self) -> NDArray[np.int64]:
        count = min(TURNED_RADIOGRAPHS, self.expected)
        return np.unique(np.linspace(0, self.expected - 1, count).astype(np.int64))


def measure_novelty(
    bundle: Bundle, graph: Graph, radiographs: Radiographs, folders: Sequence[Path], basis: str
) -> NoveltyGate:
    """Measure the gate on radiographs that should pass and on OOD images that should not.

    Args:
        bundle: the bundle whose limits apply.
        graph: its graph.
        radiographs: images that should pass.
        folders: folders of real OOD images.
        basis: what the radiographs are, in the words of a sentence.

    Returns:
        For the radiographs, each kind of OOD image and each origin: the shares over the limits
        (`warned`, `novel`) and with any warning of the gate (`flagged`).
    """
    spec, limits = bundle.manifest.preprocess, bundle.manifest.novelty
    found = [image for folder in folders for image in find_ood_images(folder, spec)]
    ood_images = [
        *make_ood_images(spec),
        *(image for number, each in enumerate(radiographs.samples) for image in turn(each, number)),
        *(image for image in found if isinstance(image, OodImage)),
    ]
    novelty_N = np.array(radiographs.novelty)
    own = _shares(novelty_N, np.array(radiographs.is_odd, dtype=np.bool_), limits)
    novelty_M, odd_M = _answer(graph, [image.image_HW for image in ood_images])

    def figures(places: Sequence[int], origin: str | None = None) -> OodFigures:
        shares = _shares(novelty_M[places], odd_M[places], limits)
        measured = OodFigures(
            **shares.as_json(),
            n_objects=count_objects([ood_images[place].image_HW for place in places]),
            auroc=_auroc_of(novelty_M[places], novelty_N),
        )
        return measured if origin is None else measured.changed(origin=origin)

    of_origin = {
        origin: [place for place, image in enumerate(ood_images) if image.origin == origin]
        for origin in _TOTALS
    }
    return NoveltyGate(
        basis=basis,
        radiographs=own,
        kinds={
            kind: figures(places, ood_images[places[0]].origin)
            for kind, places in by_kind(ood_images).items()
        },
        origins={
            _TOTALS[origin]: figures(places) for origin, places in of_origin.items() if places
        },
        n_unreadable=sum(isinstance(image, ImageError) for image in found),
    )


def novelty_lines(gate: NoveltyGate) -> Iterator[str]:
    """Write the figures as a Markdown table."""
    own = gate.radiographs
    yield f"Measured against {own.n:,} {gate.basis}."
    yield (
        "`warned` and `novel` are over the two limits; `flagged` has any warning of the gate, "
        "the rules about grey values included."
    )
    yield from (
        "",
        "| | images | different things | AUROC | warned | novel | flagged |",
        "|---|---|---|---|---|---|---|",
    )
    yield f"| these radiographs | {own.n:,} | | | {_percents(own)} |"
    totals = ((f"**{name}**", figures) for name, figures in gate.origins.items())
    for name, figures in (*gate.kinds.items(), *totals):
        remark = _STILL_CHESTS.get(figures.origin or "", "")
        area = "" if figures.auroc is None else f"{figures.auroc:.3f}"
        yield (
            f"| {name}{remark} | {figures.n:,} | {figures.n_objects:,} | {area} | "
            f"{_percents(figures)} |"
        )


def _percents(figures: NoveltyShares) -> str:
    return " | ".join(f"{share:.1%}" for share in (figures.warned, figures.novel, figures.flagged))


def _answer(graph: Graph, images: Sequence[Grey]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return each image's distance, and whether the rules about grey values raise a warning."""
    novelty = [
        float(outputs.novelty_N[0]) for _, outputs in predict(graph, enumerate(images), (PLAIN,))
    ]
    odd = [_looks_odd(image_HW) for image_HW in images]
    return np.array(novelty, dtype=np.float64), np.array(odd, dtype=np.bool_)


def _looks_odd(image_HW: Grey) -> bool:
    return any(True for _ in appearance_warnings(Image.fromarray(image_HW)))


def _shares(novelty: Floats, odd: NDArray[np.bool_], limits: NoveltyLimits) -> NoveltyShares:
    warned = novelty > limits.warn
    return NoveltyShares(
        n=len(novelty),
        warned=float(warned.mean()),
        novel=float((novelty > limits.novel).mean()),
        flagged=float((warned | odd).mean()),
    )


def _auroc_of(novelty_M: Floats, novelty_N: Floats) -> float | None:
    label = np.r_[np.ones(len(novelty_M), dtype=np.int_), np.zeros(len(novelty_N), dtype=np.int_)]
    return auroc(label, np.r_[novelty_M, novelty_N])
