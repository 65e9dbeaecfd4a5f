"""Prepare one upload and run its views: inline if it waits for nobody, else through the queue.

Shape suffixes: N images, K views of one image, M columns of metadata.
"""

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from app.inference.admission import InFlight
from app.inference.decoders import Decoders, Preparation, Prepared
from app.inference.inline_runs import InlineImage
from app.inference.model_queue import InlineStep, ModelQueue
from app.inference.pending_request import InferenceResult
from app.inference.prediction import merge_metadata
from app.inference.request import AdmittedRequest
from app.inference.step_spans import record_preparation, record_queued_run
from cxr.errors import NeedsWorker
from cxr.metadata_features import encode_metadata_features
from cxr.tta import PLAIN, make_views


@dataclass(frozen=True, slots=True)
class UploadRun:
    """The way of one upload from its bytes to the outputs of its views."""

    admitted: AdmittedRequest
    upload: InFlight
    decoders: Decoders
    queue: ModelQueue
    preparation: Preparation

    async def answer(self, data: bytes) -> tuple[Prepared, InferenceResult]:
        """Prepare and run; raises `ImageError` or `ServiceError`."""
        started = time.monotonic()
        since = time.perf_counter()
        prepared, inline = await self._prepare(data)
        record_preparation(prepared, since=since, inline=inline)
        waited_s = time.monotonic() - started - prepared.seconds
        if inline is not None:
            return prepared, replace(inline, queue_s=max(0.0, waited_s - inline.run_s))
        run_s = self.queue.own_seconds(len(self.admitted.views))
        queued = await self.queue.run(
            await self._make_views(prepared),
            start_by=self.upload.start_by(run_s),
            metadata_M=self._metadata_features(prepared),
            with_map=self.admitted.request.heatmap,
        )
        record_queued_run(queued)
        return prepared, replace(queued, queue_s=queued.queue_s + max(0.0, waited_s))

    async def _prepare(self, data: bytes) -> tuple[Prepared, InferenceResult | None]:
        """Decode and preprocess, and run at once if that is possible."""
        start_by = self.upload.start_by(self.upload.work.own_s)
        try:
            with self.queue.inline() as inline:
                return await self.decoders.prepare_in_thread(
                    partial(self._take_inline, inline),
                    data,
                    self.preparation,
                    start_by=start_by,
                    run_s=self.queue.own_seconds(len(self.admitted.views)),
                )
        except NeedsWorker as needs:
            seconds = needs.seconds
        self.upload.is_typical = False
        prepared = await self.decoders.prepare_in_worker(
            data,
            self.preparation,
            start_by=start_by,
            sender=self.admitted.sender,
            seconds=seconds,
        )
        return prepared, None

    def _take_inline(self, inline: InlineStep, prepared: Prepared) -> InlineImage | None:
        """Let a plain view run here, unless fewer threads than run slots leave some idle."""
        is_plain = self.admitted.views == (PLAIN,)
        if not is_plain or self.decoders.num_threads < self.queue.num_run_slots:
            return None
        return inline.take(
            prepared.image_HW,
            self._metadata_features(prepared),
            with_map=self.admitted.request.heatmap,
        )

    def _metadata_features(self, prepared: Prepared) -> NDArray[np.float32] | None:
        """Return the metadata features, float32 [M], if the model reads them."""
        if not self.admitted.version.manifest.metadata:
            return None
        metadata = merge_metadata(prepared.metadata, self.admitted.request.stated)
        features_NM = encode_metadata_features([metadata])
        features_M: NDArray[np.float32] = features_NM[0]
        return features_M

    async def _make_views(self, prepared: Prepared) -> NDArray[np.uint8]:
        """Return the views that the model is to see, uint8 [K, H, W]."""
        views = self.admitted.views
        if len(views) == 1:
            return prepared.image_HW[None]
        return await self.decoders.run_in_thread(make_views, prepared.image_HW, views)
