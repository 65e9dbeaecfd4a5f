"""Pictures of predictions: the most confident right and wrong ones and the least certain ones, with
their maps.

Shape suffixes: H and W rows and columns, h and w map rows and columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cxr.bundle import Bundle
from cxr.decode import DecodeLimits, decode
from cxr.graph import Graph
from cxr.heatmap import draw_heatmap
from cxr.preprocess import preprocess
from training.evaluation.prediction import LabelledPrediction

_EACH = 4
"""Pictures of a kind."""

_SIDE = 320
"""Most pixels on the longer side of a picture."""

_JPEG_QUALITY = 80

KINDS = {
    "right-positive": "Rightly called positive, the surest",
    "right-negative": "Rightly called negative, the surest",
    "wrong-positive": "Wrongly called positive, the surest",
    "wrong-negative": "Missed, the surest",
    "uncertain": "The least certain",
}
"""What is shown, in this order, and its caption."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the gallery, as metrics.json names it."""

    kind: str
    file: str
    """The folder of pictures, next to metrics.json."""
    image_id: str
    label: int
    probability: float


def choose(
    predictions: Sequence[LabelledPrediction], threshold: float
) -> Iterator[tuple[str, LabelledPrediction]]:
    """Pick up to four predictions of each kind; certainty is the distance from the threshold."""
    surest_first = sorted(
        predictions, key=lambda prediction: -abs(prediction.probability - threshold)
    )
    for kind in KINDS:
        if kind == "uncertain":
            chosen = surest_first[::-1]
        else:
            right, positive = kind.startswith("right"), kind.endswith("positive")
            chosen = [
                prediction
                for prediction in surest_first
                if (prediction.probability >= threshold) == positive
                and (prediction.label == int(positive)) == right
            ]
        for prediction in chosen[:_EACH]:
            yield kind, prediction


def draw_gallery(  # noqa: PLR0913 - what a picture needs
    bundle: Bundle,
    graph: Graph,
    data_dir: Path,
    out_dir: Path,
    predictions: Sequence[LabelledPrediction],
    *,
    threshold: float,
) -> list[Picture]:
    """Draw each chosen radiograph without and with its map. Write them as JPEG under
    `out_dir/gallery`.
    """
    folder = out_dir / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    pictures = []
    for number, (kind, prediction) in enumerate(choose(predictions, threshold), start=1):
        path = folder / f"{number:02}-{kind}.jpg"
        _pair(bundle, graph, data_dir / prediction.path).save(path, quality=_JPEG_QUALITY)
        file = path.relative_to(out_dir).as_posix()
        pictures.append(
            Picture(
                kind, file, Path(prediction.path).stem, prediction.label, prediction.probability
            )
        )
    return pictures


def _pair(bundle: Bundle, graph: Graph, path: Path) -> Image.Image:
    """Draw a radiograph, and to its right the same with the map of its plain view."""
    data, spec = path.read_bytes(), bundle.manifest.preprocess
    cam_hw = graph.run(
        preprocess(decode(data, limits=DecodeLimits(), size=spec.size), spec)[None]
    ).cam_Nhw[0]
    radiograph = Image.fromarray(decode(data, limits=DecodeLimits(), size=_SIDE).pixels_HW)
    radiograph.thumbnail((_SIDE, _SIDE))
    picture_HW = np.asarray(radiograph)
    overlay_HW3 = draw_heatmap(cam_hw, picture_HW)
    return Image.fromarray(
        np.concatenate([np.repeat(picture_HW[..., None], 3, axis=2), overlay_HW3], axis=1)
    )
