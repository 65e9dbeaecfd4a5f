import asyncio
import hashlib
from pathlib import Path

import httpx
import pytest

from app.api.auth import main
from app.settings import Settings, SettingsError
from tests.app.serving import Served, listening, serving

pytestmark = pytest.mark.anyio

KEY = "correct-horse-battery-staple"
LINE = f"ward-7:{hashlib.sha256(KEY.encode()).hexdigest()}"
OTHER = f"pacs:{hashlib.sha256(b'another').hexdigest()}"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def predict(served: Served, png: bytes, headers: dict[str, str]) -> httpx.Response:
    return await served.client.post("/predict", files={"file": png}, headers=headers)


async def test_without_keys_nobody_needs_one(store: Path, png: bytes) -> None:
    async with serving(store) as served:
        assert (await predict(served, png, {})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), bearer(""), {"authorization": KEY}, {"authorization": f"Basic {KEY}"}],
)
async def test_a_missing_or_wrong_key_is_unauthorized_before_all_else(
    store: Path, headers: dict[str, str]
) -> None:
    async with serving(store, api_keys=LINE) as served:
        answer = await served.client.post(
            "/predict?tta=perhaps&model=none", content=b"x", headers=headers
        )

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_each_of_several_keys_is_let_in(store: Path, png: bytes, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# who may ask\n{OTHER}  # the archive\n")
    async with serving(store, api_keys=LINE, api_keys_file=tmp_path / "keys") as served:
        for key in (KEY, "another"):
            assert (await predict(served, png, bearer(key))).status_code == 200
        assert (await served.client.get("/models")).status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/sample.png"]
)
async def test_what_must_be_read_before_a_key_can_be_shown_is_open(store: Path, path: str) -> None:
    async with serving(store, api_keys=LINE) as served:
        assert (await served.client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/models/bright", "/models/x.js", "/docs/../models", "/predict.js/x", "/nothing"]
)
async def test_everything_else_is_closed(store: Path, path: str) -> None:
    async with serving(store, api_keys=LINE) as served:
        assert (await served.client.get(path)).status_code == 401


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(store: Path) -> None:
    async with serving(store, api_keys=f"{LINE},{OTHER}", max_calls_per_minute=12) as served:
        statuses = [
            (await served.client.get("/models", headers=bearer(KEY))).status_code for _ in range(3)
        ]
        refused = await served.client.get("/models", headers=bearer(KEY))
        neighbour = await served.client.get("/models", headers=bearer("another"))

    assert statuses == [200, 200, 429]
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    assert neighbour.status_code == 200


def test_a_made_key_fits_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ward-7"]) == 0
    key, line = (row.rsplit(" ", 1)[1] for row in capsys.readouterr().out.splitlines())
    assert line == f"ward-7:{hashlib.sha256(key.encode()).hexdigest()}"
    assert len(key) >= 43


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "example.org"])
def test_an_address_that_others_reach_needs_a_key_or_a_waiver(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("CXR_HOST", host)
    with pytest.raises(SettingsError, match="CXR_WAIVE_API_KEY"):
        Settings.read()
    monkeypatch.setenv("CXR_WAIVE_API_KEY", "true")
    assert Settings.read().host == host
    monkeypatch.delenv("CXR_WAIVE_API_KEY")
    monkeypatch.setenv("CXR_API_KEYS", LINE)
    assert Settings.read().host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_loopback_needs_none(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("CXR_HOST", host)
    assert Settings.read().host == host


@pytest.mark.parametrize("text", ["", "# rendered later\n", "\n \n", "\ufeff", ","])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_file_that_holds_no_key_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, host: str
) -> None:
    (tmp_path / "keys").write_text(text)
    monkeypatch.setenv("CXR_API_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("CXR_HOST", host)
    monkeypatch.setenv("CXR_WAIVE_API_KEY", "true")
    with pytest.raises(SettingsError, match="API"):
        Settings.read()


@pytest.mark.parametrize("text", ["", " ", ",", "# none"])
def test_a_variable_that_holds_no_key_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setenv("CXR_API_KEYS", text)
    with pytest.raises(SettingsError, match="CXR_API_KEYS is set and holds no key"):
        Settings.read()


def test_a_file_without_a_key_stops_the_start_though_the_variable_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("")
    monkeypatch.setenv("CXR_API_KEYS", "a:" + 64 * "0")
    monkeypatch.setenv("CXR_API_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(SettingsError, match="CXR_API_KEYS_FILE is set and holds no key"):
        Settings.read()


def test_a_key_in_clear_stops_the_start_and_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_API_KEYS", f"ward-7:{KEY}")
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("head", [b"", b"POST /predict HTTP/1.1\r\nhost: [::1]\r\n"])
async def test_headers_that_do_not_arrive_are_cut_off(store: Path, head: bytes) -> None:
    async with listening(store) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.client.base_url.port)
        writer.write(head)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"slow_client" in answer


async def test_a_body_that_never_ends_is_cut_off_after_its_answer(store: Path) -> None:
    async with listening(store, max_upload_bytes=100_000) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.client.base_url.port)
        writer.write(
            b"POST /predict HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\ncontent-type: "
            b"image/png\r\n\r\n"
        )
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_for_ever(writer), 10)
        writer.close()
        assert (await served.client.get("/livez")).status_code == 200


async def send_for_ever(writer: asyncio.StreamWriter) -> None:
    """Send chunks of a body until the other side has had enough."""
    while True:
        writer.write(b"2000\r\n" + bytes(0x2000) + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)
