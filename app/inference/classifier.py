"""The models, decoders and queues that a service answers with: open them, use them, close them.

Shape suffixes: H and W picture rows and columns, h and w map rows and columns.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

from app.errors import MalformedRequest, NotReady
from app.inference.admission import Admission, InFlight, Work
from app.inference.answer_pictures import draw_heatmap_png, write_png
from app.inference.deadline import by_deadline
from app.inference.decoders import HEATMAP_SIDE, Decoders, Preparation, Prepared
from app.inference.model_queue import ModelQueue, make_queue
from app.inference.pending_request import InferenceResult
from app.inference.prediction import Prediction, Timings, distinct, merge_metadata
from app.inference.request import AdmittedRequest, PredictionRequest
from app.inference.upload_run import UploadRun
from app.models.store import ModelStore, ServedVersion, StoredModel
from app.settings import Settings
from app.telemetry import Metrics
from cxr.interpret import Finding, interpret, scope_warnings
from cxr.manifest import Manifest

__all__ = ["PREVIEW_SIDE", "AdmittedRequest", "Classifier", "by_deadline"]

PREVIEW_SIDE = 4096
"""Most pixels on a side of an upload's own picture; flat-panel detectors have no more."""


class Classifier:
    """The models, decoders and queues of one service process; belongs to one event loop."""

    def __init__(
        self, settings: Settings, metrics: Metrics, store: ModelStore, decoders: Decoders
    ) -> None:
        self.store = store
        self._settings = settings
        self._metrics = metrics
        self._decoders = decoders
        self._queues: dict[ServedVersion, ModelQueue] = {}
        self.admission = Admission(_call_later)
        if settings.workers == 1 and not settings.has_device_process:
            decoders.help_while(self.admission.is_calm)  # several processes fill the cores already
        self._draining = False

    async def open(self) -> None:
        """Load the store, start a queue for each served version, and the decoders."""
        await asyncio.to_thread(self.store.load)
        for model in self.store.models:
            self.adopt(model)
        self._decoders.start()

    def adopt(self, model: StoredModel) -> ServedVersion | None:
        """Let a model's prepared state serve from here on.

        Returns:
            The version that serves no more, to `retire`.
        """
        if model.current is not None and model.current not in self._queues:
            self._info(model.current).set(1)
            self._queues[model.current] = make_queue(
                model.current, self._metrics, capacity=self._settings.queue_capacity
            )
        is_gone = not model.marks and model.current is None
        self._metrics.count_refused(model.name, None if is_gone else len(model.refused))
        return self.store.switch(model)

    async def retire(self, version: ServedVersion) -> None:
        """Wait until a version that serves no more has answered its last request, and free its
        memory.
        """
        await version.wait_until_free()
        await self._queues[version].close()
        del self._queues[version]
        self._info(version).set(0)
        for serving in self._queues:  # the same version may have come again, with the same labels
            self._info(serving).set(1)

    async def close(self) -> None:
        """Finish what was admitted, then stop everything that `open` started."""
        self.drain()
        await asyncio.gather(*(queue.close() for queue in self._queues.values()))
        await self._decoders.close()

    def drain(self) -> None:
        """Admit nothing more; what was admitted is finished."""
        self._draining = True

    def faults(self) -> list[str]:
        """Name every part that has died and stays dead; empty while the process is sound."""
        return [queue.fault for queue in self._queues.values() if queue.fault]

    def unready_reasons(self) -> list[str]:
        """Say why the default model can't answer now; empty while it can."""
        draining = ["The service is going down."] if self._draining else []
        decoders = [self._decoders.fault] if self._decoders.fault else []
        store = self.store.faults(self._settings.default_model) + self._operating_point_faults()
        return draining + store + self.faults() + self._pauses() + decoders

    def _pauses(self) -> list[str]:
        """Say why the device process does not answer for the default model now."""
        name = self._settings.default_model
        current = {model.current for model in self.store.models if model.name == name}
        queues = [queue for version, queue in self._queues.items() if version in current]
        return [queue.capacity.pause_reason for queue in queues if queue.capacity.pause_reason]

    @contextmanager
    def choose(
        self,
        name: str | None,
        request: PredictionRequest,
        *,
        sender: str,
        num_bytes: int,
        deadline: float,
    ) -> Iterator[AdmittedRequest]:
        """Hold the version that is to answer, if it can answer the request in time.

        This runs before the body is read, so that a refusal costs next to nothing.

        Args:
            name: the model, or None for the default one.
            request: what is asked.
            sender: who asks.
            num_bytes: length of the body; 0 if it is not known.
            deadline: when the answer is worth nothing any more, on `time.monotonic`'s clock.

        Raises:
            UnknownModel: the store has no such model.
            MalformedRequest: the model has no such operating point, also if it is the service's
                own default, or no prevalence to shift from, or has more views than may wait.
            NotReady: it has no good version, or the service is going down.
            Overloaded: the answer would come too late, or too much is waiting.
        """
        with self.store.lease(name or self._settings.default_model) as version:
            operating_point = request.operating_point or self._settings.operating_point or None
            if operating_point != request.operating_point:
                request = replace(request, operating_point=operating_point)
            request.check(version.manifest)
            if self._draining:
                raise NotReady("The service is going down.", retry_after_s=5)
            queue = self._queues[version]
            views = request.views(version.manifest)
            if len(views) > queue.capacity.limit:
                raise MalformedRequest("The image has more views than this service can hold.")
            work = self._work(queue, len(views), num_bytes)
            with self.admission.arriving(queue.capacity, len(views), work, deadline) as upload:
                yield AdmittedRequest(version, request, views, deadline, upload, sender)

    async def classify(self, data: bytes, admitted: AdmittedRequest) -> Prediction:
        """Answer one request about one upload.

        Args:
            data: the file.
            admitted: what `choose` gave, still held.

        Raises:
            ImageError: the upload can't be answered.
            ServiceError: the service can't answer it, or not in time.
        """
        started = time.monotonic()
        version = admitted.version
        request = admitted.request
        with self._working(data, admitted) as upload:
            async with by_deadline(admitted.deadline):
                preparation = self._preparation(
                    version.manifest, HEATMAP_SIDE if request.heatmap else None
                )
                run = UploadRun(
                    admitted, upload, self._decoders, self._queues[version], preparation
                )
                prepared, answer = await run.answer(data)
                with self._metrics.time_stage("interpret"):
                    finding = interpret(
                        answer.outputs,
                        version.manifest,
                        operating_point=request.operating_point,
                        shift=request.shift(version.manifest),
                    )
                    heatmap_png = await self._draw(finding, prepared.preview_HW)
        metadata = merge_metadata(prepared.metadata, request.stated)
        scope = scope_warnings(metadata, version.manifest.scope)
        prediction = Prediction(
            version=version,
            finding=finding,
            metadata=metadata,
            processing=prepared.processing,
            warnings=distinct(prepared.warnings, scope, finding.warnings),
            heatmap_png=heatmap_png,
            timings_ms=Timings.of(prepared, answer, started=started),
        )
        self._count(prediction, prepared, answer)
        return prediction

    async def preview(self, data: bytes, admitted: AdmittedRequest) -> bytes:
        """Draw an upload as the service reads it: a PNG, grey, upright, black as the header says.

        While it is drawn it counts as one image of the version's queue, so that pictures are
        bounded as predictions are.

        Raises:
            ImageError: the upload can't be read.
            ServiceError: the service can't read it, or not in time.
        """
        with self._working(data, admitted) as upload:
            upload.is_typical = False
            async with by_deadline(admitted.deadline):
                preparation = self._preparation(admitted.version.manifest, PREVIEW_SIDE)
                prepared = await self._decoders.prepare(
                    data, preparation, start_by=admitted.deadline, sender=admitted.sender
                )
                self._metrics.observe_stage("decode", prepared.decode_s)
                assert prepared.preview_HW is not None
                return await self._decoders.run_in_picture_thread(write_png, prepared.preview_HW)

    @contextmanager
    def _working(self, data: bytes, admitted: AdmittedRequest) -> Iterator[InFlight]:
        """Count a file that is here as in flight, and learn from its answer."""
        work = self._work(self._queues[admitted.version], len(admitted.views), len(data))
        with (
            self.admission.working(admitted.upload, work) as upload,
            self.admission.learning(upload),
        ):
            yield upload

    def _work(self, queue: ModelQueue, num_views: int, num_bytes: int) -> Work:
        """Estimate the work on a file of so many bytes; 0 is an unknown length."""
        decode_s = self._decoders.seconds(num_bytes)
        return Work(
            own_s=decode_s + queue.own_seconds(num_views),
            shared_s=decode_s / self._decoders.num_threads + queue.shared_seconds(num_views),
        )

    def _info(self, version: ServedVersion) -> Gauge:
        manifest = version.manifest
        return self._metrics.model_info.labels(
            manifest.model, str(manifest.version), version.bundle.sha256, version.graph.engine
        )  # fmt: skip

    def _operating_point_faults(self) -> list[str]:
        """Say if the default model lacks the service's own operating point."""
        name, point = self._settings.default_model, self._settings.operating_point
        current = next((model.current for model in self.store.models if model.name == name), None)
        has_point = current is None or point in ("", *current.manifest.operating_points)
        return (
            []
            if has_point
            else [f"{name} has no operating point {point}, which CXR_OPERATING_POINT names."]
        )

    def _preparation(self, manifest: Manifest, preview_side: int | None) -> Preparation:
        settings = self._settings
        return Preparation(
            manifest.preprocess, settings.decode_limits, settings.scope, preview_side
        )

    async def _draw(self, finding: Finding, preview_HW: NDArray[np.uint8] | None) -> bytes | None:
        if preview_HW is None:
            return None
        return await self._decoders.run_in_thread(draw_heatmap_png, finding.cam_hw, preview_HW)

    def _count(self, prediction: Prediction, prepared: Prepared, answer: InferenceResult) -> None:
        metrics, manifest, finding = self._metrics, prediction.version.manifest, prediction.finding
        metrics.observe_stage("decode", prepared.decode_s)
        metrics.observe_stage("preprocess", prepared.preprocess_s)
        metrics.observe_stage("queue", answer.queue_s)
        metrics.observe_stage("run", answer.run_s)
        metrics.observe_answer(manifest.model, manifest.version, finding.label, finding.probability)
        for warning in prediction.warnings:
            metrics.warnings.labels(warning.code).inc()


def _call_later(delay_s: float, function: Callable[[], None]) -> None:
    """Set a timer of the loop that serves, which does not run yet when the service is put
    together.
    """
    asyncio.get_running_loop().call_later(delay_s, function)
