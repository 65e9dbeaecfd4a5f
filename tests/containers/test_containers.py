"""The image and the composed services in a real engine, from the first start to the last drain.

The tests run in order, as one tour of one stack: `make test-containers`.
"""

import json
import math
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.bundles import write_made_bundle
from tests.containers.compose import BASE_IMAGE, IMAGE, ROOT, Stack, docker, inspect
from tests.containers.load import Load

pytestmark = pytest.mark.timeout(900)

MAX_OWN_LAYERS_MB = 350
DASHBOARD = ROOT / "deploy/grafana/dashboards/cxr-serve.json"


def test_the_image_adds_little_to_its_base(stack: Stack, figures: dict[str, str]) -> None:
    own_mb = (inspect(IMAGE)["Size"] - inspect(BASE_IMAGE)["Size"]) / 1e6
    figures["image's own layers"] = f"{own_mb:.0f} MB (at most {MAX_OWN_LAYERS_MB})"
    assert own_mb <= MAX_OWN_LAYERS_MB


def test_the_image_names_itself_and_is_not_root(stack: Stack) -> None:
    config = inspect(IMAGE)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "Research use" in config["Labels"]["org.opencontainers.image.description"]


def test_the_container_can_neither_write_nor_gain_rights(stack: Stack) -> None:
    attempts = (
        "open('/srv/x', 'w')",
        "open('/srv/model_store/x', 'w')",
        "__import__('os').setuid(0)",
        "__import__('torch')",
    )
    for attempt in attempts:
        done = subprocess.run(
            ["docker", "exec", stack.container, "python", "-c", attempt],
            check=False,
            capture_output=True,
        )
        assert done.returncode == 1, attempt


def test_ports_are_published_on_the_loopback_alone(stack: Stack) -> None:
    for container in (stack.container, f"{stack.project}-prometheus-1"):
        published = [
            place["HostIp"]
            for places in inspect(container)["NetworkSettings"]["Ports"].values()
            for place in places
        ]
        assert published == ["127.0.0.1"]


def test_a_cold_start_is_ready_in_seconds(stack: Stack, figures: dict[str, str]) -> None:
    stack.compose("rm", "--force", "--stop", "cxr")
    started = time.monotonic()
    stack.compose("up", "--detach", "cxr")
    stack.wait_until_ready()
    seconds = time.monotonic() - started
    figures["`docker compose up` to ready"] = f"{seconds:.1f} s"
    assert seconds < 15


def test_every_radiograph_is_answered(
    stack: Stack, files: dict[str, bytes], expected: dict[str, float]
) -> None:
    assert expected.keys() == files.keys()
    assert all(0 <= probability <= 1 for probability in expected.values())


def test_answers_under_load_are_those_given_alone(
    stack: Stack, files: dict[str, bytes], expected: dict[str, float], figures: dict[str, str]
) -> None:
    figures["memory at rest"] = f"{stack.memory_mb():.0f} MB"
    load = Load(stack.url, files, expected)
    with load.running():
        time.sleep(15)
        under_load_mb = stack.memory_mb()
    tally = load.tally
    figures["memory under load (8 clients)"] = f"{under_load_mb:.0f} MB"
    figures["answers a second (8 clients)"] = f"{tally.answered / tally.seconds:.0f}"
    assert set(tally.statuses) == {200}
    assert (tally.wrong, tally.broken) == (0, 0)


def test_a_file_that_is_none_is_refused_with_a_problem(stack: Stack) -> None:
    answer = httpx.post(
        f"{stack.url}/predict",
        content=b"GIF89a",
        headers={"content-type": "application/octet-stream"},
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")


def test_every_query_of_the_dashboard_has_data(
    stack: Stack, files: dict[str, bytes], expected: dict[str, float], figures: dict[str, str]
) -> None:
    queries = dashboard_queries()
    load = Load(stack.url, files, expected, pause_s=0.5)
    deadline = time.monotonic() + 180
    with load.running(clients=2):
        empty = queries
        while empty and time.monotonic() < deadline:
            time.sleep(5)
            httpx.post(
                f"{stack.url}/predict",
                content=b"GIF89a",
                headers={"content-type": "application/octet-stream"},
            )
            empty = [query for query in empty if not has_data(stack, query)]
    figures["dashboard queries with data"] = f"{len(queries) - len(empty)} of {len(queries)}"
    assert empty == []


def test_prometheus_knows_every_rule_and_none_fails(stack: Stack) -> None:
    groups = httpx.get(f"{stack.prometheus_url}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 20
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_no_alert_fires_in_a_sound_service(stack: Stack) -> None:
    assert stack.query('ALERTS{alertstate="firing"}') == []


def test_a_killed_service_gives_no_wrong_answer_and_comes_back(
    stack: Stack, files: dict[str, bytes], expected: dict[str, float], figures: dict[str, str]
) -> None:
    load = Load(stack.url, files, expected)
    with load.running():
        time.sleep(2)
        stack.compose("kill", "--signal", "KILL", "cxr")
        stack.compose("up", "--detach", "cxr")
        stack.wait_until_ready()
        time.sleep(2)
    figures["answers wrong after kill -9"] = f"{load.tally.wrong} of {load.tally.answered}"
    assert load.tally.wrong == 0
    assert load.tally.broken > 0  # it was killed under load indeed
    assert set(load.tally.statuses) == {200}


def test_a_drain_loses_no_request(
    stack: Stack, files: dict[str, bytes], expected: dict[str, float], figures: dict[str, str]
) -> None:
    load = Load(stack.url, files, expected, stop_at_503=True)
    with load.running():
        time.sleep(2)
        stack.compose("stop", "cxr")
    figures["requests lost on drain"] = f"{load.tally.broken} of {load.tally.answered}"
    assert (load.tally.wrong, load.tally.broken) == (0, 0)
    assert load.tally.statuses[503] > 0
    assert inspect(stack.container)["State"]["ExitCode"] == 0


def test_a_new_version_in_the_volume_takes_over_without_a_restart_and_loses_no_request(
    stack: Stack,
    store: Path,
    files: dict[str, bytes],
    expected: dict[str, float],
    figures: dict[str, str],
) -> None:
    stack.compose("start", "cxr")
    stack.wait_until_ready()
    old = newest_version(store, "pneumothorax")
    write_made_bundle(store, "pneumothorax", old + 1, size=224)
    load = Load(stack.url, files, expected)
    started = time.monotonic()
    with load.running():
        while not load.tally.versions[old + 1] and time.monotonic() < started + 120:
            time.sleep(0.5)
    figures["requests lost on a model's swap"] = f"{load.tally.broken} of {load.tally.answered}"
    figures["a new version in the store to its first answer, under load"] = (
        f"{time.monotonic() - started:.1f} s"
    )
    assert load.tally.broken == 0
    assert set(load.tally.statuses) == {200}
    assert set(load.tally.versions) == {old, old + 1}
    answer = httpx.post(
        f"{stack.url}/predict", content=files["made-2"], headers={"content-type": "image/png"}
    )
    assert answer.json()["model"]["version"] == old + 1


def newest_version(store: Path, model: str) -> int:
    return max(int(path.name) for path in (store / model).iterdir() if path.is_dir())


def test_the_log_is_json_and_names_no_file(stack: Stack) -> None:
    lines = docker("logs", stack.container).splitlines()
    assert all("message" in json.loads(line) for line in lines)


def dashboard_queries() -> list[str]:
    """List the dashboard's queries, with its variables filled in as the page would.

    The gateway's are left out, for a bare `docker compose up` starts none.
    """
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [
        query.replace("$__rate_interval", "1m").replace("$model", ".*")
        for query in queries
        if "cxr_gateway_" not in query
    ]


def has_data(stack: Stack, query: str) -> bool:
    """Tell whether a query gives at least one series with a number."""
    return any(not math.isnan(float(series["value"][1])) for series in stack.query(query))
