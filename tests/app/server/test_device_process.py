"""Several workers and one device process: the same answers, and nobody's end is anybody else's."""

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.api.test_open_inference import binary_request, json_request, same
from tests.app.server.senders import Tally, post, process_ids, senders
from tests.app.serving import Served, serving
from tests.bundles import write_made_bundle
from tests.factories import chest, make_dicom, make_jpeg, make_png
from tests.server import ROOT, Server, running_server
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(
    900
)  # each starts several processes, for which a busy machine takes long

WAYS = {"workers": 2, "device_process": "on", "engine_lanes": 1, "engine_threads": 1}


def device_process(server: Server) -> int:
    return process_ids(server, "device process")[-1]


def shared_memory_files() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir()}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shipped models, served by two workers and a device process on the CPU."""
    folder = tmp_path_factory.mktemp("shipped")
    with running_server(ROOT / "model_store", folder / "log", **WAYS) as server:
        yield server


@pytest.fixture(scope="module")
async def alone() -> AsyncIterator[Served]:
    """The shipped models, served by one process."""
    async with serving(ROOT / "model_store", default_model="pneumothorax", max_batch=1) as served:
        yield served


@contextmanager
def serving_made_model(folder: Path) -> Iterator[Server]:
    store = folder / "store"
    write_made_bundle(store, "bright", 1)
    with running_server(
        store, folder / "log", default_model="bright", store_poll_seconds=0.2, **WAYS
    ) as server:
        yield server


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A made model, served in the same way; whoever takes a process away waits for the next."""
    with serving_made_model(tmp_path_factory.mktemp("lasting")) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The same, for a test that ends it."""
    with serving_made_model(tmp_path) as server:
        yield server


def replaced(server: Server, kind: str) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return float(text.partition(f"\ncxr_replaced_{kind}_total ")[2].split()[0])


FILES = {
    "dicom": make_dicom(chest(), PatientAge="058Y", PatientSex="M", ViewPosition="PA"),
    "jpeg": make_jpeg(chest()),
    "png": make_png(chest()),
}
QUERIES = ("", "?tta=true", "?heatmap=true", "?tta=true&heatmap=true&model=pneumonia")


@pytest.mark.anyio
async def test_answers_equal_those_of_one_process(shipped: Server, alone: Served) -> None:
    async with httpx.AsyncClient(base_url=shipped.url, timeout=120) as client:
        for data in FILES.values():
            for query in QUERIES:
                path = f"/predict{query}"
                wanted = await alone.client.post(path, files={"file": data})
                got = await client.post(path, files={"file": data})
                assert (got.status_code, wanted.status_code) == (200, 200)
                assert_same(got.json(), wanted.json())


@pytest.mark.anyio
async def test_a_batch_and_the_open_inference_protocol_answer_as_one_process_does(
    shipped: Server, alone: Served
) -> None:
    parts = [("files", data) for data in [*FILES.values(), b"no image"]]
    asked = {"inputs": [{"name": "file", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}]}
    async with httpx.AsyncClient(base_url=shipped.url, timeout=120) as client:
        batches = [
            (await one.post("/predict/batch", files=parts)).json() for one in (client, alone.client)
        ]
        refused = [
            await one.post("/v2/models/pneumothorax/infer", json=asked)
            for one in (client, alone.client)
        ]

    assert len(batches[0]["results"]) == len(parts)
    assert_same(*batches)
    assert refused[0].status_code == refused[1].status_code >= 400
    assert refused[0].json() == refused[1].json()


def assert_same(got: Any, wanted: Any) -> None:
    """Compare two answers but for ids and times; numbers within 1e-6."""
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for name in wanted.keys() - {"request_id", "timings_ms"}:
            assert_same(got[name], wanted[name])
    elif isinstance(wanted, list):
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, float):
        assert got == pytest.approx(wanted, abs=1e-6)
    else:
        assert got == wanted


def test_answers_leave_no_file_of_shared_memory_and_an_empty_queue(shipped: Server) -> None:
    before = shared_memory_files()
    for _ in range(3):
        assert post(shipped).status_code == 200
    text = httpx.get(f"{shipped.url}/metrics").text

    assert "cxr_replaced_device_processes_total 0.0" in text
    assert "cxr_queue_depth 0.0" in text
    assert shared_memory_files() == before


def test_the_open_inference_protocol_answers_what_predict_answers(shipped: Server) -> None:
    file = make_dicom(chest(512, 512))
    wanted = httpx.post(f"{shipped.url}/predict", files={"file": file}, timeout=60).json()
    url = f"{shipped.url}/v2/models/pneumothorax/infer"
    body, headers = binary_request(file)
    answers = [
        httpx.post(url, json=json_request(file), timeout=60),
        httpx.post(url, content=body, headers=headers, timeout=60),
    ]

    for answer in answers:
        values = {output["name"]: output["data"][0] for output in answer.json()["outputs"]}
        assert values["probability"] == wanted["probability"]
        assert same(json.loads(values["answer"]), wanted)


def test_a_killed_worker_loses_only_its_own_requests(lasting: Server) -> None:
    num_started = len(process_ids(lasting, "worker"))
    device_processes = process_ids(lasting, "device process")
    with senders(lasting, 6) as tally:
        wait_until(lambda: tally.count(200) > 20)
        os.kill(process_ids(lasting, "worker")[0], signal.SIGKILL)
        answered = tally.count(200)
        wait_until(lambda: tally.count(200) > answered + 40)
        wait_until(lambda: len(process_ids(lasting, "worker")) == num_started + 1)

    assert tally.lost <= 6
    assert tally.count(200) == len(tally.answers)
    assert process_ids(lasting, "device process") == device_processes


def test_a_killed_device_process_is_replaced_and_its_requests_are_told_to_wait(
    lasting: Server,
) -> None:
    num_replaced = replaced(lasting, "device_processes")
    workers = process_ids(lasting, "worker")
    with senders(lasting) as tally:
        wait_until(lambda: tally.count(200) > 20)
        os.kill(device_process(lasting), signal.SIGKILL)
        wait_until(lambda: tally.count(503))
        wait_until(lambda: tally.answers[-1].status_code == 200)
        answered = tally.count(200)
        wait_until(lambda: tally.count(200) > answered + 20)

    assert tally.lost == 0
    assert tally.count(200) + tally.count(503) == len(tally.answers)
    assert {
        answer.headers["retry-after"] for answer in tally.answers if answer.status_code == 503
    } == {"2"}
    assert process_ids(lasting, "worker") == workers
    assert replaced(lasting, "device_processes") == num_replaced + 1


def test_a_device_process_that_stands_still_is_killed_and_replaced(lasting: Server) -> None:
    stopped = device_process(lasting)
    os.kill(stopped, signal.SIGSTOP)
    with senders(lasting) as tally:
        wait_until(lambda: device_process(lasting) != stopped)
        wait_until(lambda: tally.count(200) > 20)

    assert "hangs" in lasting.log.read_text()
    assert tally.lost == 0
    assert tally.count(503) > 0


def test_a_new_version_takes_over_under_load_and_the_old_one_is_closed(lasting: Server) -> None:
    with senders(lasting) as tally:
        wait_until(lambda: tally.count(200) > 20)
        write_made_bundle(lasting.log.parent / "store", "bright", 2)
        wait_until(lambda: newest_versions(tally) == {2})

    assert tally.lost == 0
    assert tally.count(200) == len(tally.answers)
    assert {answer.json()["model"]["version"] for answer in tally.answers} == {1, 2}
    assert 'version="2"} 1.0' in model_info(lasting)
    wait_until(lambda: 'version="1"} 0.0' in model_info(lasting))


def newest_versions(tally: Tally) -> set[int]:
    with suppress(KeyError):
        return {answer.json()["model"]["version"] for answer in list(tally.answers)[-20:]}
    return set()


def model_info(server: Server) -> str:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    kept = [line for line in lines if line.startswith("cxr_model_info{")]
    return "\n".join(
        f"{line.partition('version=')[1]}{line.partition('version=')[2]}" for line in kept
    )


def test_a_drain_loses_no_request_and_leaves_nothing_behind(server: Server) -> None:
    before = shared_memory_files()
    processes = process_ids(server, "worker") + process_ids(server, "device process")
    with senders(server) as tally:
        wait_until(lambda: tally.count(200) > 20)
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(120)

    assert status == 0
    assert tally.lost == 0
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]
    assert shared_memory_files() <= before


def test_all_processes_go_when_their_parent_is_killed(server: Server) -> None:
    before = shared_memory_files()
    processes = process_ids(server, "worker") + process_ids(server, "device process")
    server.process.kill()
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))

    assert shared_memory_files() <= before
