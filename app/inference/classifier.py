"""The path of one request: decode, preprocess, make the views, queue, run, interpret, answer.

`Classifier` owns everything that this path runs through, opens it and closes it.

Shape suffixes: K views of one image, H and W picture rows and columns, h and w map rows and
columns.
"""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import Gauge

from app.errors import DeadlineExceeded, NotReady
from app.inference.admission import Admission, Arrival
from app.inference.batcher import Batcher
from app.inference.decoders import HEATMAP_SIDE, Decoders, Preparation, Prepared
from app.inference.pending import InferenceResult
from app.inference.prediction import Prediction, Timings, distinct, merge_metadata
from app.inference.request import PredictionRequest
from app.models.store import ModelStore, ServedVersion, StoredModel
from app.settings import Settings
from app.telemetry import Metrics
from cxr.interpret import Finding, draw_heatmap, interpret, scope_warnings
from cxr.manifest import Manifest
from cxr.metadata_features import encode_metadata_features
from cxr.tta import PLAIN, TtaView, make_views

PREVIEW_SIDE = 4096
"""Most pixels on a side of an upload's own picture; flat-panel detectors have no more."""

_PNG_EFFORT = 1
"""zlib level of pictures: a third larger than the best, and ten times sooner."""


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A question that was let in: which version answers it, and by when on `time.monotonic`'s
    clock.
    """

    version: ServedVersion
    request: PredictionRequest
    deadline: float
    arrival: Arrival


class Classifier:
    """The models, decoders and queues of one service process; belongs to one event loop."""

    def __init__(
        self, settings: Settings, metrics: Metrics, store: ModelStore, decoders: Decoders
    ) -> None:
        self.store = store
        self._settings = settings
        self._metrics = metrics
        self._decoders = decoders
        self._batchers: dict[ServedVersion, Batcher] = {}
        self._admission = Admission(decoders, self._batchers.values())
        self._draining = False

    async def open(self) -> None:
        """Load the store, start a queue for each served version, and the decoders."""
        await asyncio.to_thread(self.store.load)
        for model in self.store.models:
            self.adopt(model)
        self._decoders.start()

    def adopt(self, model: StoredModel) -> ServedVersion | None:
        """Let a model's prepared state serve from here on; gives the version that serves no more,
        to `retire`.
        """
        if model.current is not None and model.current not in self._batchers:
            self._batchers[model.current] = self._start_batcher(model.current)
        self._metrics.refused_bundles.labels(model.name).set(len(model.refused))
        return self.store.switch(model)

    async def retire(self, version: ServedVersion) -> None:
        """Wait until a version that serves no more has answered all who hold it, and let go of its
        memory.
        """
        await version.wait_until_free()
        await self._batchers[version].close()
        del self._batchers[version]
        self._info(version).set(0)
        for serving in self._batchers:  # the same version may have come again, with the same labels
            self._info(serving).set(1)

    async def close(self) -> None:
        """Finish what was taken, then stop everything that `open` started."""
        self.drain()
        await asyncio.gather(*(batcher.close() for batcher in self._batchers.values()))
        await self._decoders.close()

    def drain(self) -> None:
        """Take nothing more; what was taken is finished."""
        self._draining = True

    def faults(self) -> list[str]:
        """Name every part that has died and stays dead; empty while the process is sound."""
        return [batcher.fault for batcher in self._batchers.values() if batcher.fault]

    def unready_reasons(self) -> list[str]:
        """Say why the default model can't answer now; empty while it can."""
        draining = ["The service is going down."] if self._draining else []
        decoders = [self._decoders.fault] if self._decoders.fault else []
        store = self.store.faults(self._settings.default_model) + self._operating_point_faults()
        return draining + store + self.faults() + decoders

    @contextmanager
    def choose(
        self, name: str | None, request: PredictionRequest, *, num_bytes: int, deadline: float
    ) -> Iterator[AdmittedRequest]:
        """Hold the version that is to answer, if it can answer the question in time.

        This runs before the body is read, so that a refusal costs next to nothing.

        Args:
            name: the model, or None for the default one.
            request: what is asked.
            num_bytes: length of the body; 0 where it is not known.
            deadline: when the answer is worth nothing any more, on `time.monotonic`'s clock.

        Raises:
            UnknownModel: the store has no such model.
            MalformedRequest: the model has no such operating point, also where it is the service's
                own default,
                or no prevalence to shift from.
            NotReady: it has no good version, or the service is going down.
            Overloaded: the answer would come too late, or too much is waiting.
        """
        with self.store.lease(name or self._settings.default_model) as version:
            request = replace(
                request,
                operating_point=request.operating_point or self._settings.operating_point or None,
            )
            request.check(version.manifest)
            if self._draining:
                raise NotReady("The service is going down.", retry_after_s=5)
            batcher, num_views = self._batchers[version], len(request.views(version.manifest))
            with self._admission.expect(batcher, num_views, num_bytes, deadline) as arrival:
                yield AdmittedRequest(version, request, deadline, arrival)

    async def classify(self, data: bytes, admitted: AdmittedRequest) -> Prediction:
        """Answer one question about one upload.

        Args:
            data: the file.
            admitted: what `choose` gave, still held.

        Raises:
            ImageError: the upload can't be answered.
            ServiceError: the service can't answer it, or not in time.
        """
        started = time.monotonic()
        version, request, deadline = admitted.version, admitted.request, admitted.deadline
        manifest, batcher = version.manifest, self._batchers[version]
        views = request.views(manifest)
        admitted.arrival.end()
        with self._admission.admit(batcher, len(views), len(data), deadline):
            async with by_deadline(deadline):
                preparation = self._preparation(manifest, HEATMAP_SIDE if request.heatmap else None)
                prepared, answer = await self._prepare_and_run(data, preparation, admitted, views)
                with self._metrics.time_stage("interpret"):
                    point, shift = request.operating_point, request.shift(manifest)
                    finding = interpret(
                        answer.outputs, manifest, operating_point=point, shift=shift
                    )
                    heatmap_png = await self._draw(finding, prepared.preview_HW)
        metadata = merge_metadata(prepared.metadata, request.stated)
        prediction = Prediction(
            version=version,
            finding=finding,
            metadata=metadata,
            processing=prepared.processing,
            warnings=distinct(
                prepared.warnings, scope_warnings(metadata, manifest.scope), finding.warnings
            ),
            heatmap_png=heatmap_png,
            timings_ms=Timings.of(prepared, answer, started=started),
        )
        self._count(prediction, prepared, answer)
        return prediction

    async def _prepare_and_run(
        self,
        data: bytes,
        preparation: Preparation,
        admitted: AdmittedRequest,
        views: tuple[TtaView, ...],
    ) -> tuple[Prepared, InferenceResult]:
        """Decode, preprocess and run: in one thread where an image need not wait, else through the
        model's queue.
        """
        started, deadline, request = time.monotonic(), admitted.deadline, admitted.request
        manifest, batcher = admitted.version.manifest, self._batchers[admitted.version]

        def facts(prepared: Prepared) -> NDArray[np.float32] | None:
            """Write down what is known beside the image, where the model reads it."""
            return (
                encode_metadata_features([merge_metadata(prepared.metadata, request.stated)])[0]
                if manifest.metadata
                else None
            )

        if (
            views == (PLAIN,) and self._decoders.num_threads >= batcher.num_run_slots
        ):  # fewer threads would leave lanes idle
            with batcher.at_once() as run_here:
                done = await self._decoders.prepare_in_thread(
                    lambda prepared: run_here(prepared.image_HW, facts(prepared)),
                    data,
                    preparation,
                    deadline=deadline,
                )
            prepared, answer = done or (
                await self._decoders.prepare_in_worker(data, preparation, deadline=deadline),
                None,
            )
            if answer is not None:
                waited_s = time.monotonic() - started - prepared.seconds - answer.run_s
                return prepared, replace(answer, queue_s=max(0.0, waited_s))
        else:
            prepared = await self._decoders.prepare(data, preparation, deadline=deadline)
        waited_s = time.monotonic() - started - prepared.seconds
        views_KHW = await self._make_views(prepared.image_HW, views)
        answer = await batcher.run(views_KHW, deadline=deadline, metadata_M=facts(prepared))
        return prepared, replace(answer, queue_s=answer.queue_s + max(0.0, waited_s))

    async def preview(self, data: bytes, admitted: AdmittedRequest) -> bytes:
        """Draw an upload as the service reads it: grey, upright, black as the header says; gives a
        PNG.

        While it is drawn it takes one place in the version's queue, so that pictures
        are bounded as predictions are.

        Raises:
            ImageError: the upload can't be read.
            ServiceError: the service can't read it, or not in time.
        """
        admitted.arrival.end()
        with self._batchers[admitted.version].admit(1):
            async with by_deadline(admitted.deadline):
                preparation = self._preparation(admitted.version.manifest, PREVIEW_SIDE)
                prepared = await self._decoders.prepare(
                    data, preparation, deadline=admitted.deadline
                )
                self._metrics.observe_stage("decode", prepared.decode_s)
                assert prepared.preview_HW is not None
                return await self._decoders.run_in_thread(_png, prepared.preview_HW)

    def _info(self, version: ServedVersion) -> Gauge:
        manifest = version.manifest
        return self._metrics.model_info.labels(
            manifest.model, str(manifest.version), version.bundle.sha256, version.graph.engine
        )  # fmt: skip

    def _start_batcher(self, version: ServedVersion) -> Batcher:
        settings = self._settings
        self._info(version).set(1)
        return Batcher(version.graph, self._metrics, version.plan, capacity=settings.queue_capacity)

    def _operating_point_faults(self) -> list[str]:
        """Say that the default model lacks the service's operating point, and so refuses who names
        none.
        """
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

    async def _make_views(
        self, image_HW: NDArray[np.uint8], views: tuple[TtaView, ...]
    ) -> NDArray[np.uint8]:
        if len(views) == 1:
            return image_HW[None]
        return await self._decoders.run_in_thread(make_views, image_HW, views)

    async def _draw(self, finding: Finding, preview_HW: NDArray[np.uint8] | None) -> bytes | None:
        if preview_HW is None:
            return None
        return await self._decoders.run_in_thread(_heatmap_png, finding.cam_hw, preview_HW)

    def _count(self, prediction: Prediction, prepared: Prepared, answer: InferenceResult) -> None:
        metrics, manifest, finding = self._metrics, prediction.version.manifest, prediction.finding
        metrics.observe_stage("decode", prepared.decode_s)
        metrics.observe_stage("preprocess", prepared.preprocess_s)
        metrics.observe_stage("queue", answer.queue_s)
        metrics.observe_stage("run", answer.run_s)
        metrics.predictions.labels(manifest.model, str(manifest.version), finding.label).inc()
        metrics.probability.labels(manifest.model).observe(finding.probability)
        for warning in prediction.warnings:
            metrics.warnings.labels(warning.code).inc()


@asynccontextmanager
async def by_deadline(deadline: float) -> AsyncIterator[None]:
    """Stop the block at a time on `time.monotonic`'s clock; raises `DeadlineExceeded`."""
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise DeadlineExceeded("The deadline passed before the work began.")
    try:
        async with asyncio.timeout(remaining_s):
            yield
    except TimeoutError as exc:
        raise DeadlineExceeded("The answer was not ready by the deadline.") from exc


def _heatmap_png(cam_hw: NDArray[np.float32], preview_HW: NDArray[np.uint8]) -> bytes:
    return _png(draw_heatmap(cam_hw, preview_HW))


def _png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=_PNG_EFFORT)
    return file.getvalue()
