"""A service without keys belongs to its machine: foreign pages and rebound names are refused."""

from pathlib import Path

import pytest

from tests.app.serving import Served, serving

pytestmark = pytest.mark.anyio

PORT = 8000


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "cxr-serve",
        "[fe80::1]",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/models", "/metrics", "/readyz", "/", "/nowhere"])
async def test_a_host_that_is_not_this_machine_is_misdirected(
    served: Served, host: str, path: str
) -> None:
    answer = await served.client.get(path, headers={"host": host})

    assert (answer.status_code, answer.json()["code"]) == (421, "misdirected_request")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "127.9.9.9", "localhost", "LOCALHOST:1", "[::1]:80", "a.b:1"],
)
async def test_the_loopback_and_the_names_of_the_settings_are_answered(
    store: Path, host: str
) -> None:
    async with serving(store, allowed_hosts="x, A.B") as served:
        answer = await served.client.get("/models", headers={"host": host})

    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "[2001:db8::1]", "cxr-serve:8000"])
async def test_a_service_on_all_addresses_answers_to_any_of_them_and_to_its_names(
    store: Path, host: str
) -> None:
    async with serving(
        store, host="0.0.0.0", waive_api_key=True, allowed_hosts="cxr-serve"
    ) as served:
        answer = await served.client.get("/metrics", headers={"host": host})
        foreign = await served.client.get("/metrics", headers={"host": "evil.example"})

    assert (answer.status_code, foreign.status_code) == (200, 421)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:3000", "host": "localhost:8000"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://localhost:8000.evil.example", "host": "localhost:8000"},
        {"origin": "http://localhost:8000@evil.example", "host": "localhost:8000"},
        {"origin": "null"},
        {"origin": "file://"},
        {"origin": "http://["},
        {"origin": "http://[localhost]"},
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/predict/dicom", "/preview"])
async def test_a_page_of_another_origin_may_send_nothing(
    served: Served, png: bytes, path: str, headers: dict[str, str]
) -> None:
    answer = await served.client.post(path, files={"file": png}, headers=headers)
    metrics = (await served.client.get("/metrics")).text

    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "cxr_predictions_total{" not in metrics


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8000", "origin": "http://localhost:8000"},
        {"host": "localhost:8000", "origin": "http://LOCALHOST:8000"},
        {"host": "127.0.0.1", "origin": "https://127.0.0.1:8443"},  # a proxy drops the port
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "https://viewer.example", "sec-fetch-site": "cross-site"},
        {},
    ],
)
async def test_the_own_page_and_named_ones_may_send(
    store: Path, png: bytes, headers: dict[str, str]
) -> None:
    async with serving(store, allowed_hosts="viewer.example") as served:
        answer = await served.client.post("/predict", files={"file": png}, headers=headers)

    assert answer.status_code == 200


async def test_any_host_may_be_allowed_and_foreign_pages_still_may_not_send(
    store: Path, png: bytes
) -> None:
    async with serving(store, allowed_hosts="*") as served:
        read = await served.client.get("/models", headers={"host": "any.example"})
        sent = await served.client.post(
            "/predict", files={"file": png}, headers={"origin": "http://evil.example"}
        )

    assert (read.status_code, sent.status_code) == (200, 403)


async def test_with_keys_every_host_is_answered_for_the_key_decides(store: Path) -> None:
    async with serving(store, api_keys="a:" + 64 * "0") as served:
        answer = await served.client.get("/livez", headers={"host": "any.example"})

    assert answer.status_code == 200
