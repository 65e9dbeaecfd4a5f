"""Pictures of predictions: the most confident right and wrong ones and the least certain ones, with
their maps.

Shape suffixes: H and W rows and columns, h and w map rows and columns.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.errors import ImageError
from cxr.evaluation_schema import Picture
from cxr.heatmap import draw_heatmap
from cxr.preprocess import PreprocessSpec
from training.evaluation.answer_images import ImageAnswer
from training.evaluation.labelled_images import read_picture
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
class Candidate:
    """A prediction that may get a picture, and the map of its plain view."""

    prediction: LabelledPrediction
    cam_hw: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Choose pictures while answers come in: only the candidates of each kind are kept.

    Certainty is the distance of the probability from the threshold.
    """

    threshold: float
    _chosen: dict[str, list[Candidate]] = field(
        default_factory=lambda: {kind: [] for kind in KINDS}
    )

    def add(self, answer: ImageAnswer) -> None:
        """Keep an answer, if it is among the first of its kind so far."""
        prediction = answer.prediction
        kinds = [
            kind
            for kind in (_kind_of(prediction, self.threshold), "uncertain")
            if self._has_room(kind, prediction)
        ]
        if not kinds:
            return
        candidate = Candidate(prediction, answer.outputs.cam_Nhw[0])
        for kind in kinds:
            ranked = sorted(
                [*self._chosen[kind], candidate],
                key=lambda each: self._rank(kind, each.prediction),
            )
            self._chosen[kind] = ranked[:_EACH]

    def write(self, out_dir: Path, data_dir: Path, spec: PreprocessSpec) -> list[Picture]:
        """Draw each chosen radiograph without and with its map. Write them as JPEG under
        `out_dir/gallery`. The files lie in `data_dir`; one that has gone meanwhile is left out.
        """
        folder = out_dir / "gallery"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jpg"):
            old.unlink()
        chosen = [(kind, each) for kind in KINDS for each in self._chosen[kind]]
        pictures = []
        for number, (kind, candidate) in enumerate(chosen, start=1):
            path = folder / f"{number:02}-{kind}.jpg"
            prediction = candidate.prediction
            try:
                picture_HW = read_picture(data_dir / prediction.file, spec, _SIDE)
            except (OSError, ImageError):
                continue  # its figures count, only its picture is missing
            _pair(picture_HW, candidate.cam_hw).save(path, quality=_JPEG_QUALITY)
            picture = Picture(
                kind=kind,
                file=path.relative_to(out_dir).as_posix(),
                image_id=Path(prediction.file).stem,
                label=prediction.label,
                probability=prediction.probability,
            )
            pictures.append(picture)
        return pictures

    def _has_room(self, kind: str, prediction: LabelledPrediction) -> bool:
        chosen = self._chosen[kind]
        if len(chosen) < _EACH:
            return True
        return self._rank(kind, prediction) < self._rank(kind, chosen[-1].prediction)

    def _rank(self, kind: str, prediction: LabelledPrediction) -> float:
        certainty = abs(prediction.probability - self.threshold)
        return certainty if kind == "uncertain" else -certainty


def _kind_of(prediction: LabelledPrediction, threshold: float) -> str:
    called = prediction.probability >= threshold
    outcome = "right" if called == bool(prediction.label) else "wrong"
    if outcome == "wrong":
        return "wrong-positive" if called else "wrong-negative"
    return "right-positive" if called else "right-negative"


def _pair(picture_HW: NDArray[np.uint8], cam_hw: NDArray[np.float32]) -> Image.Image:
    """Draw a radiograph, and to its right the same with the map of its plain view."""
    overlay_HW3 = draw_heatmap(cam_hw, picture_HW)
    return Image.fromarray(
        np.concatenate([np.repeat(picture_HW[..., None], 3, axis=2), overlay_HW3], axis=1)
    )
