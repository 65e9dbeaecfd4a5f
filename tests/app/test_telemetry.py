import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.server.log import SafeJsonFormatter
from app.telemetry import Metrics, choose_request_id
from tests.app.fake_graph import FakeGraph
from tests.app.serving import Served, listening, serving, until
from tests.factories import chest, make_dicom

pytestmark = pytest.mark.anyio

SECRETS = ("SECRET", "1970", "secret-file", "63.5", "GENERAL HOSPITAL")


async def samples(served: Served) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Read the metrics: (name, labels) to value."""
    text = (await served.client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_an_answer_shows_in_every_metric(store: Path, png: bytes) -> None:
    async with serving(store) as served:
        answer = (
            await served.client.post("/predict", files={"file": png}, params={"tta": "1"})
        ).json()
        found = await samples(served)

    assert found[key("cxr_request_duration_seconds_count", route="/predict", status="200")] == 1
    for stage in ("receive", "decode", "preprocess", "queue", "run", "interpret"):
        assert found[key("cxr_stage_duration_seconds_count", stage=stage)] == 1
    assert found[key("cxr_batch_size_sum")] == 2
    assert found[key("cxr_queue_depth")] == 0
    assert (
        found[key("cxr_predictions_total", model="bright", version="1", label=answer["label"])] == 1
    )
    assert found[key("cxr_probability_count", model="bright")] == 1
    assert found[key("cxr_warnings_total", code="age_missing")] == 1
    sha256 = answer["model"]["sha256"]
    assert (
        found[
            key(
                "cxr_model_info",
                model="bright",
                version="1",
                sha256=sha256,
                provider="onnxruntime-cpu",
            )
        ]
        == 1
    )


async def test_a_refusal_is_counted_by_its_reason(store: Path) -> None:
    async with serving(store) as served:
        await served.client.post(
            "/predict", content=b"no image", headers={"content-type": "image/png"}
        )
        await served.client.post("/predict/batch", files=[("files", b"no image")])
        await served.client.get("/no/such/path/for/JOHN/DOE")
        found = await samples(served)

    assert found[key("cxr_rejections_total", reason="unsupported_format")] == 2
    assert found[key("cxr_request_duration_seconds_count", route="unmatched", status="404")] == 1


async def test_no_log_line_and_no_metric_holds_anything_of_the_patient(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_dicom(
        chest(64, 64), PatientName="SECRET^NAME", PatientID="SECRET-ID",
        PatientBirthDate="19700101",
        InstitutionName="GENERAL HOSPITAL", ViewPosition="SECRETVIEW", PatientAge="SECR",
    )  # fmt: skip
    caplog.set_level(logging.DEBUG)
    texts = []
    async with serving(store) as served:
        for body in (data, data[:-400], data[:700], b"SECRET"):
            files = {"file": ("secret-file.dcm", body)}
            texts.append(
                (await served.client.post("/predict", files=files, params={"age_years": 63.5})).text
            )
            files = {"files": ("secret-file.dcm", body)}
            await served.client.post("/predict/batch", files=files, params={"sex": "SECRET"})
        texts.append((await served.client.get("/metrics")).text)
    texts += [
        SafeJsonFormatter().format(record) for record in caplog.records if record.name != "httpx"
    ]

    assert any("/predict" in text for text in texts)
    assert not [
        text for text in texts for secret in SECRETS if secret in without_measurements(text)
    ]


MEASURED = (
    "age_years|duration_ms|receive|decode|preprocess|queue|run|interpret|total|"
    "probability|threshold|score|limit"
)
"""What numbers are called that may have any digits, in answers and log lines; the age is an echo of
the question."""


def without_measurements(text: str) -> str:
    """Take out what was measured, and the values of metrics: by chance a time has the digits of a
    secret."""
    return re.sub(rf'(?m)("(?:{MEASURED})": ?|^cxr_\S* )-?\d[\d.e+-]*', r"\1", text)


def test_a_secret_beside_measurements_is_still_found() -> None:
    kept = without_measurements(
        '{"age_years":63.5,"year":1970,"run":1970.1}\ncxr_sum{name="63.5"} 0.001970'
    )
    assert kept == '{"age_years":,"year":1970,"run":}\ncxr_sum{name="63.5"} '


async def test_an_access_line_has_id_route_status_and_stages(
    store: Path, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(store) as served:
        await served.client.post(
            "/predict?model=bright", content=png, headers={"x-request-id": "trace-7"}
        )

    (line,) = [
        json.loads(SafeJsonFormatter().format(record))
        for record in caplog.records
        if record.name == "cxr.access"
    ]
    assert (line["route"], line["status"], line["method"]) == ("/predict", 200, "POST")
    assert line["stages_ms"].keys() == {
        "receive",
        "decode",
        "preprocess",
        "queue",
        "run",
        "interpret",
    }
    assert line["duration_ms"] >= line["stages_ms"]["decode"]
    assert "bright" not in json.dumps(line)


async def test_a_client_that_leaves_stops_its_work_and_is_counted(
    store: Path, png: bytes, graph: FakeGraph
) -> None:
    async with listening(store, opener=graph.open, engine_lanes=1, max_batch=1) as served:
        warm = len(graph.batch_sizes)
        graph.gate.clear()
        head = (
            f"POST /predict HTTP/1.1\r\nhost: [::1]\r\ncontent-type: image/png\r\ncontent-length: "
            f"{len(png)}\r\n\r\n"
        )
        leavers = [
            await asyncio.open_connection(served.client.base_url.host, served.client.base_url.port)
            for _ in range(4)
        ]
        for _, writer in leavers:
            writer.write(head.encode() + png)
            await writer.drain()
        await until(lambda: len(graph.batch_sizes) == warm + 1)
        await asyncio.sleep(0.2)
        for _, writer in leavers:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.2)
        graph.gate.set()
        await served.client.post("/predict", content=png)
        found = await samples(served)

    assert found[key("cxr_request_duration_seconds_count", route="/predict", status="499")] == 4
    assert found[key("cxr_rejections_total", reason="client_gone")] == 4
    assert (
        sum(graph.batch_sizes[warm:]) == 2
    )  # the one that ran when its client left, and the one that stayed


def test_an_exception_is_logged_without_its_message() -> None:
    message = "SECRET^NAME"
    try:
        raise ValueError(message)
    except ValueError:
        record = logging.LogRecord(
            "cxr", logging.ERROR, "file", 1, "it failed", None, sys.exc_info()
        )

    line = SafeJsonFormatter().format(record)

    assert message not in line
    assert "ValueError" in line
    assert "test_telemetry" in line


def test_an_id_that_is_missing_or_strange_is_replaced() -> None:
    assert choose_request_id("abc-1.2_3") == "abc-1.2_3"
    for strange in (None, "", "x" * 129, "a\nb", "ä"):
        assert choose_request_id(strange) not in (strange, "")


def test_metrics_of_several_processes_add_up(tmp_path: Path) -> None:
    script = (
        "from app.telemetry import Metrics; m = Metrics(); m.predictions.labels('m', '1', "
        "'l').inc();"
        "m.batch_size.observe(3); print(m.render(str())[0].decode())"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

    assert 'cxr_predictions_total{label="l",model="m",version="1"} 2.0' in done.stdout
    assert "cxr_batch_size_sum 6.0" in done.stdout


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.batch_size.observe(1)

    assert b"cxr_batch_size_count 1.0" in one.render("")[0]
    assert b"cxr_batch_size_count 0.0" in other.render("")[0]
