"""Spans are exported to a real receiver of OTLP/HTTP, and cost nothing if there is none."""

import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from tests.bundles import write_made_bundle
from tests.factories import chest, make_dicom, make_png
from tests.server import ROOT, free_port, running_server
from tests.waiting import wait_until

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SECRETS = ("SECRET", "1970", "secret-file", "63.5")
STEPS = ["admission", "receive", "queue", "decode", "preprocess", "run", "interpret", "answer"]


@dataclass
class Collector:
    """A receiver of OTLP/HTTP that keeps what it is sent."""

    received: list[ResourceSpans] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for resource in self.received
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def take(self, body: bytes) -> None:
        with self.news:
            self.received += ExportTraceServiceRequest.FromString(body).resource_spans
            self.news.notify_all()

    def wait_for(self, is_there: Callable[[list[Span]], bool]) -> list[Span]:
        with self.news:
            assert self.news.wait_for(lambda: is_there(self.spans), timeout=120)
            return self.spans


@contextmanager
def collecting(port: int) -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_packed = self.headers.get("content-encoding") == "gzip"
            assert self.path == "/v1/traces"
            collector.take(gzip.decompress(body) if is_packed else body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    write_made_bundle(folder, "bright", 1)
    return folder


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of the collector that the service is told of."""
    port = free_port()
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    return port


@dataclass(frozen=True)
class Traced:
    """A running service, and the receiver of its spans, which holds those of one test."""

    url: str
    log: Path
    collector: Collector


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """One service for the tests that only ask it; each waits for the spans of all it asks."""
    folder = tmp_path_factory.mktemp("traced")
    write_made_bundle(folder / "store", "bright", 1)
    port = free_port()
    with (
        pytest.MonkeyPatch.context() as patch,
        collecting(port) as collector,
    ):
        patch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # its spans would hold the query
        with running_server(folder / "store", folder / "log", default_model="bright") as server:
            yield Traced(server.url, server.log, collector)


@pytest.fixture
def traced(lasting: Traced) -> Traced:
    """The same, with nothing received yet."""
    lasting.collector.received.clear()
    return lasting


def requests_in(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]


def attributes(span: Span) -> dict[str, object]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


def test_the_steps_of_an_answer_are_exported_below_the_senders_span(
    traced: Traced,
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    before_ns = time.time_ns()
    answer = httpx.post(
        f"{traced.url}/predict",
        files={"file": make_png(chest(96, 96))},
        headers=headers,
        timeout=120,
    )
    spans = traced.collector.wait_for(lambda spans: len(requests_in(spans)) == 1)
    after_ns = time.time_ns()

    assert answer.status_code == 200
    (request,) = requests_in(spans)
    steps = sorted(
        (span for span in spans if span.parent_span_id == request.span_id),
        key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano),
    )
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert request.name == "POST /predict"
    assert attributes(request) == {
        "http.request.method": "POST", "http.route": "/predict", "http.response.status_code": 200
    }  # fmt: skip
    assert [span.name for span in steps] == STEPS
    assert before_ns < request.start_time_unix_nano < request.end_time_unix_nano < after_ns
    for span in steps:
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano
    named = {
        pair.key: pair.value.string_value
        for pair in traced.collector.received[0].resource.attributes
    }
    assert named["service.name"] == "cxr-serve"


def test_a_span_holds_nothing_of_the_patient_the_file_or_the_query(traced: Traced) -> None:
    collector = traced.collector
    data = make_dicom(chest(64, 64), PatientName="SECRET^NAME", PatientBirthDate="19700101")
    headers = {"tracestate": "name=SECRET", "baggage": "name=SECRET", "user-agent": "SECRET"}
    with httpx.Client(base_url=traced.url, headers=headers, timeout=120) as client:
        for body in (data, data[:-400], b"SECRET"):
            files = {"file": ("secret-file.dcm", body)}
            client.post("/predict?age_years=63.5&prevalence=SECRET", files=files)
            client.post("/predict?age_years=63.5", files=files)
        client.post("/predict/SECRET/19700101", content=b"SECRET")
        collector.wait_for(lambda spans: len(requests_in(spans)) == 7)
    sent = repr(collector.received)

    assert [secret for secret in SECRETS if secret in sent] == []
    statuses = {attributes(span)["http.response.status_code"] for span in collector.spans
                if span.kind == Span.SPAN_KIND_SERVER}  # fmt: skip
    assert {200, 400, 404} < statuses


def test_a_trace_that_is_exported_is_named_in_the_log(traced: Traced) -> None:
    num_logged = len(traced.log.read_text().splitlines())
    httpx.post(f"{traced.url}/predict", files={"file": make_png(chest(64, 64))}, timeout=120)
    (request,) = requests_in(traced.collector.wait_for(lambda spans: bool(requests_in(spans))))

    def lines() -> list[dict[str, str]]:
        logged = map(json.loads, traced.log.read_text().splitlines()[num_logged:])
        return [line for line in logged if line.get("route") == "/predict"]

    wait_until(lambda: bool(lines()))
    (line,) = lines()
    assert line["trace_id"] == request.trace_id.hex()


def test_a_request_that_its_sender_does_not_sample_is_not_exported(traced: Traced) -> None:
    collector = traced.collector
    with httpx.Client(base_url=traced.url, timeout=120) as client:
        files = {"file": make_png(chest(64, 64))}
        client.post("/predict", files=files, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        client.post(
            "/predict", files=files, headers={"traceparent": f"00-{TRACE[::-1]}-{PARENT}-01"}
        )
        collector.wait_for(lambda spans: bool(requests_in(spans)))

    assert {span.trace_id.hex() for span in collector.spans} == {TRACE[::-1]}


def test_without_a_collector_every_request_is_answered_and_the_service_ends(
    store: Path, tmp_path: Path, endpoint: int
) -> None:
    with (
        running_server(store, tmp_path / "log", default_model="bright") as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        for _ in range(40):
            assert client.post("/predict", files={"file": make_png(chest(64, 64))}).is_success
    assert server.process.returncode == 0


def test_spans_that_the_service_still_has_at_its_end_are_sent(
    store: Path, tmp_path: Path, endpoint: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with collecting(endpoint) as collector:
        with running_server(store, tmp_path / "log", default_model="bright") as server:
            httpx.post(
                f"{server.url}/predict", files={"file": make_png(chest(64, 64))}, timeout=120
            )
            assert collector.spans == []
        assert [span.name for span in requests_in(collector.spans)] == ["POST /predict"]


NO_COLLECTOR: tuple[dict[str, str], ...] = (
    {},
    {ENDPOINT: ""},
    {ENDPOINT: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
    {ENDPOINT: "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
)
IMPORTED_BY_SERVICES = """
import os, sys
from app.main import create_app
from app.settings import Settings

for variables in {variables!r}:
    os.environ.pop({endpoint!r}, None)
    os.environ.update(variables)
    create_app(Settings(store={store!r}))
    imported = sys.modules.keys() & {{"opentelemetry.sdk", "opentelemetry.exporter"}}
    print(variables, *imported, sep=";")
    for name in variables:
        del os.environ[name]
"""


def test_a_service_without_a_collector_imports_no_exporter(store: Path) -> None:
    code = IMPORTED_BY_SERVICES.format(variables=NO_COLLECTOR, endpoint=ENDPOINT, store=str(store))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [str(variables) for variables in NO_COLLECTOR]


def test_a_collector_without_the_extra_is_named_in_the_log_and_stops_nothing(store: Path) -> None:
    code = (
        "import sys, logging; logging.basicConfig(); sys.modules['opentelemetry.sdk'] = None; "
        "from app.main import create_app; from app.settings import Settings; "
        f"create_app(Settings(store={str(store)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True,
        env={ENDPOINT: "http://127.0.0.1:9"},
    )  # fmt: skip
    assert "needs the extra otel" in done.stderr
