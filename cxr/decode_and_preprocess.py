"""From a file's bytes to what a model reads: decode, make the input, keep a picture for people.

`prepare` is a pure function. It runs the same in a thread, in a worker process and in an archive
job.

Shape suffixes: H rows, W columns.
"""

import logging
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.appearance import appearance_warnings
from cxr.decode import DecodeLimits, ScopePolicy, decode
from cxr.errors import CorruptImage, DecodeLimit, ImageError, NeedsWorker
from cxr.preprocess import PreprocessSpec, image_array, model_input
from cxr.radiograph import Metadata, Processing, Radiograph
from cxr.warning_codes import ImageWarning

HEATMAP_SIDE = 512
"""Pixels of the longer side of the picture under a heat map."""

logger = logging.getLogger("cxr.decoders")


@dataclass(frozen=True, slots=True)
class Preparation:
    """How an upload is to be prepared: the model's wishes, the service's limits."""

    spec: PreprocessSpec
    limits: DecodeLimits
    scope: ScopePolicy
    preview_side: int | None = None
    """Most pixels on the longer side of the picture that people are shown; None wants no
    picture."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An upload as the model reads it, and what its file told.

    `image_HW` is uint8 at the model's input size; `preview_HW` is uint8 in the
    radiograph's own aspect ratio, at most `preview_side` on a side.
    """

    image_HW: NDArray[np.uint8]
    preview_HW: NDArray[np.uint8] | None
    metadata: Metadata
    processing: Processing
    warnings: tuple[ImageWarning, ...]
    decode_s: float
    preprocess_s: float

    @property
    def seconds(self) -> float:
        """What all of it took."""
        return self.decode_s + self.preprocess_s


def prepare(data: bytes, preparation: Preparation, *, can_be_stopped: bool = True) -> Prepared:
    """Prepare one upload.

    Raises:
        ImageError: the upload gets no answer.
        NeedsWorker: only a process that can be stopped may decode the upload.
    """
    try:
        return _prepare(data, preparation, can_be_stopped=can_be_stopped)
    except (ImageError, NeedsWorker):
        raise
    except MemoryError as exc:
        raise DecodeLimit("Decoding took more memory than it may.") from exc
    except (
        Exception
    ) as exc:  # whatever a hostile file makes a library raise is the file's fault, and no 500
        logger.exception("decoding raised what it should not")
        raise CorruptImage("The file can't be decoded.") from exc


def _prepare(data: bytes, preparation: Preparation, *, can_be_stopped: bool) -> Prepared:
    started = time.perf_counter()
    radiograph = decode(
        data,
        limits=preparation.limits,
        size=preparation.spec.size,
        scope=preparation.scope,
        can_be_stopped=can_be_stopped,
    )
    decoded = time.perf_counter()
    image = model_input(radiograph, preparation.spec)
    image_HW = image_array(image)
    side = preparation.preview_side
    preview_HW = None if side is None else _preview(radiograph, data, preparation, side)
    ended = time.perf_counter()
    return Prepared(
        image_HW=image_HW,
        preview_HW=preview_HW,
        metadata=radiograph.metadata,
        processing=radiograph.processing,
        warnings=(*radiograph.warnings, *appearance_warnings(image)),
        decode_s=decoded - started,
        preprocess_s=ended - decoded,
    )


def _preview(
    radiograph: Radiograph, data: bytes, preparation: Preparation, side: int
) -> NDArray[np.uint8]:
    """Make the picture that people are shown, `side` pixels long at most.

    If decoding averaged to the model's input size, the file is decoded once more for the
    preview. The probability must not depend on whether a preview was requested.
    """
    if radiograph.reduction > 1 and max(radiograph.pixels_HW.shape) < side:
        radiograph = decode(data, limits=preparation.limits, size=side, scope=preparation.scope)
    picture = Image.fromarray(radiograph.pixels_HW)
    shrink = side / max(picture.size)
    if shrink < 1:
        width, height = (max(1, round(side * shrink)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    return np.array(picture, dtype=np.uint8)
