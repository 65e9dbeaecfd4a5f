"""The answer about one upload: the finding, and the facts beside it."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Self

from app.inference.decoders import Prepared
from app.inference.pending_request import InferenceResult
from app.models.store import ServedVersion
from cxr.interpret import Finding
from cxr.radiograph import Metadata, Processing
from cxr.warning_codes import ImageWarning

FROM_REQUEST = "request"
"""Source of a fact that the file does not state and the request does."""

_FACTS = ("age_years", "sex", "view_position")


@dataclass(frozen=True, slots=True)
class Timings:
    """Where an answer's time went, in milliseconds.

    `decode` includes preprocessing. `queue` is all waiting, for a thread that decodes and for a
    run slot. `total` runs from the file's arrival to its answer.
    """

    decode: float
    queue: float
    run: float
    total: float

    @classmethod
    def of(cls, prepared: Prepared, answer: InferenceResult, *, started: float) -> Self:
        """Sum up an answer that is ready now; it was `started` on `time.monotonic`'s clock."""
        total_s = time.monotonic() - started
        return cls(
            *(
                round(1000 * seconds, 3)
                for seconds in (prepared.seconds, answer.queue_s, answer.run_s, total_s)
            )
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer about one upload; `heatmap_png` is a picture of the map over the radiograph."""

    version: ServedVersion
    finding: Finding
    metadata: Metadata
    processing: Processing
    warnings: tuple[ImageWarning, ...]
    heatmap_png: bytes | None
    timings_ms: Timings


def merge_metadata(of_file: Metadata, stated: Metadata) -> Metadata:
    """Fill what the file does not state from what the request states; the file's own values win."""
    filled = {
        name: getattr(stated, name)
        for name in _FACTS
        if getattr(of_file, name) is None and getattr(stated, name) is not None
    }
    if not filled:
        return of_file
    return replace(
        of_file, **filled, source=replace(of_file.source, **dict.fromkeys(filled, FROM_REQUEST))
    )


def distinct(*groups: Iterable[ImageWarning]) -> tuple[ImageWarning, ...]:
    """Keep the first warning of each code, in order."""
    found: dict[str, ImageWarning] = {}
    for warning in chain(*groups):
        found.setdefault(warning.code, warning)
    return tuple(found.values())
