"""Build the application from its settings and connect its parts."""

import asyncio
import math
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from app.api.answer_budget import AnswerBudget, AnswerMiddleware
from app.api.auth import AccessMiddleware, ApiKeys
from app.api.bulk_priority import Slack
from app.api.cached_metrics import CachedMetrics
from app.api.head_requests import HeadMiddleware
from app.api.origin import AllowedHosts, OriginMiddleware
from app.api.problems import CrashMiddleware, install_problems
from app.api.routes import install_routes
from app.api.routes.dependencies import Service
from app.api.routes.openapi import install_openapi
from app.api.throttle import ThrottleMiddleware
from app.api.upload_budget import UploadBudget
from app.cpu import usable_cores
from app.inference.classifier import Classifier
from app.inference.decoders import Decoders
from app.inference.device.device_client import DeviceClient
from app.inference.load_report import reporting
from app.models.opening_watchdog import OpeningWatch
from app.models.store import ModelStore
from app.models.tuning import GraphOpener, make_tuner
from app.settings import Settings
from app.store_watcher import watching
from app.telemetry import Metrics, SpanExport, TelemetryMiddleware, open_span_export
from cxr.decode import quiet_libraries
from cxr.graph import open_graph

_SLOTS_FOR_EACH = 2
"""Slots in the device process for each image that may wait: one that nobody waits for any more
keeps its slot until that process says so."""

_NO_TELEMETRY_OF_FASTAPI: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own spans hold the query, and so a patient's age and sex. `app.telemetry` has ours."""


def create_app(
    settings: Settings,
    *,
    graph_opener: GraphOpener = open_graph,
    device_address: Path | None = None,
) -> FastAPI:
    """Return the application. Its lifespan opens and closes the models, threads and processes.

    Args:
        settings: the settings of the service.
        graph_opener: opens a bundle's graph. Tests replace it.
        device_address: the socket of the device process, if that one runs the graphs.
    """
    metrics = Metrics()
    device_client = (
        DeviceClient(device_address, _SLOTS_FOR_EACH * settings.queue_capacity)
        if device_address
        else None
    )
    classifier = _make_classifier(settings, metrics, graph_opener, device_client)
    span_export = open_span_export(_version())

    app = FastAPI(
        title="cxr-serve",
        summary="Chest-radiograph classifiers over HTTP",
        description="A research tool. It is no medical device, and its answers are no diagnosis.",
        version=_version(),
        lifespan=_lifespan_of(settings, metrics, classifier, device_client, span_export),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY_OF_FASTAPI,
    )
    answers = AnswerBudget(settings.max_answers_bytes, metrics)
    app.state.service = _make_service(settings, metrics, classifier, answers)
    install_routes(app)
    install_openapi(app)
    install_problems(app, metrics, overload_status=int(settings.overload_status))
    _add_middlewares(app, settings, metrics, answers, span_export)
    return app


def _lifespan_of(
    settings: Settings,
    metrics: Metrics,
    classifier: Classifier,
    device_client: DeviceClient | None,
    span_export: SpanExport | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        quiet_libraries()
        async with device_client.connected() if device_client else nullcontext():
            await classifier.open()
            try:
                async with (
                    watching(classifier, settings),
                    reporting(classifier, metrics, settings.workers),
                ):
                    yield
            finally:
                await classifier.close()
                if span_export is not None:
                    await asyncio.to_thread(span_export.close)

    return lifespan


def _make_service(
    settings: Settings, metrics: Metrics, classifier: Classifier, answers: AnswerBudget
) -> Service:
    slack = Slack(
        lambda: classifier.admission.num_in_flight,
        cores=max(1, usable_cores() // settings.workers),
        max_waiting=settings.queue_capacity,
    )
    budget = UploadBudget(settings.max_uploads_bytes)
    return Service(settings, metrics, classifier, budget, slack, answers, CachedMetrics(metrics))


def _add_middlewares(
    app: FastAPI,
    settings: Settings,
    metrics: Metrics,
    answers: AnswerBudget,
    span_export: SpanExport | None,
) -> None:
    """Wrap the routes; the last middleware that is added is the first one to run."""
    status = int(settings.overload_status)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(ThrottleMiddleware, metrics=metrics, overload_status=status)
    app.add_middleware(AnswerMiddleware, budget=answers, metrics=metrics, overload_status=status)
    keys = ApiKeys.of(settings)
    if keys.is_open:
        app.add_middleware(OriginMiddleware, hosts=AllowedHosts.of(settings), metrics=metrics)
    else:
        app.add_middleware(AccessMiddleware, api_keys=keys, metrics=metrics)
    app.add_middleware(CrashMiddleware, metrics=metrics)
    app.add_middleware(TelemetryMiddleware, metrics=metrics, span_export=span_export)


def _make_classifier(
    settings: Settings,
    metrics: Metrics,
    graph_opener: GraphOpener,
    device_client: DeviceClient | None,
) -> Classifier:
    cores = max(1, usable_cores() // settings.workers)
    # The device process itself limits how long an opening may take.
    open_seconds = settings.open_seconds if device_client is None else math.inf
    store = ModelStore(
        settings.store,
        device_client or make_tuner(settings, graph_opener, cores=cores),
        OpeningWatch(open_seconds, metrics.bundle_opening.set),
        default_model=settings.default_model,
    )
    decoders = Decoders(
        num_threads=settings.decode_threads,
        num_workers=settings.decode_workers,
        max_seconds=settings.decode_seconds,
        max_memory_bytes=settings.decode_memory_bytes,
    )
    return Classifier(settings, metrics, store, decoders)


def _version() -> str:
    try:
        return version("cxr-serve")
    except PackageNotFoundError:  # run from a checkout
        project = Path(__file__).parent.parent / "pyproject.toml"
        return (
            str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
            if project.exists()
            else "0"
        )
