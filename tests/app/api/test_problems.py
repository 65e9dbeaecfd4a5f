"""Every problem code is provoked by what provokes it in life."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import JPEG2000Lossless

from app.api.problems import PROBLEM_KINDS, CrashMiddleware
from app.telemetry import TelemetryMiddleware
from cxr.errors import GraphError
from tests.app.fake_graph import FakeGraph
from tests.app.serving import Served, listening, serving, until
from tests.factories import chest, make_dicom, make_jpeg, make_png

pytestmark = pytest.mark.anyio

Asking = Callable[[Served], Coroutine[Any, Any, httpx.Response]]

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def assert_problem(response: httpx.Response, code: str) -> dict[str, Any]:
    """Check that an answer is a whole problem document of a code; gives the document."""
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem.keys() == MEMBERS
    assert problem["code"] == code
    assert problem["status"] == response.status_code == PROBLEM_KINDS[code].status
    assert problem["title"] == PROBLEM_KINDS[code].title
    assert problem["type"].endswith(code)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["detail"]
    return problem


def post(path: str = "/predict", **options: Any) -> Asking:
    async def ask(served: Served) -> httpx.Response:
        return await served.client.post(path, **options)

    return ask


def send(data: bytes, **options: Any) -> Asking:
    return post(files={"file": data}, **options)


def get(path: str, **options: Any) -> Asking:
    async def ask(served: Served) -> httpx.Response:
        return await served.client.get(path, **options)

    return ask


PNG = make_png(chest(128, 128))
FORM = {"content-type": "multipart/form-data; boundary=b"}
LOW_LIMITS: dict[str, Any] = {"max_upload_bytes": 20_000, "max_pixels": 40_000}

REFUSALS: dict[str, tuple[Asking, str]] = {
    "no body": (post(), "malformed_request"),
    "an empty body": (post(content=b"", headers={"content-type": "image/png"}),
    "malformed_request"),
    "an empty file": (send(b""), "malformed_request"),
    "a part of another name": (post(files={"image": PNG}), "malformed_request"),
    "two files": (post(files=[("file", PNG), ("file", PNG)]), "malformed_request"),
    "a form without boundary": (post(content=b"x", headers={"content-type": "multipart/form-data"}),
    "malformed_request"),
    "a form with a huge boundary": (
        post(content=b"x", headers={"content-type": f"multipart/form-data; boundary={'b' * 999}"}),
        "malformed_request",
    ),
    "a form that is none": (post(content=b"hello", headers=FORM), "malformed_request"),
    "a form without end": (
        post(content=b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nxx', headers=FORM),
        "malformed_request",
    ),
    "a part without a name": (post(content=b"--b\r\n\r\nxx\r\n--b--\r\n", headers=FORM),
    "malformed_request"),
    "a huge part header": (post(content=b"--b\r\nx: " + b"y" * 30_000, headers=FORM),
    "malformed_request"),
    "an unknown parameter": (send(PNG, params={"no_such": "0.1"}), "malformed_request"),
    "a parameter given twice": (send(PNG, params=[("tta", "1"), ("tta", "0")]),
    "malformed_request"),
    "a flag that is none": (send(PNG, params={"tta": "maybe"}), "malformed_request"),
    "a prevalence of all": (send(PNG, params={"prevalence": "1"}), "malformed_request"),
    "an impossible age": (send(PNG, params={"age_years": "121"}), "malformed_request"),
    "an age that is no number": (send(PNG, params={"age_years": "nan"}), "malformed_request"),
    "an unknown sex": (send(PNG, params={"sex": "X"}), "malformed_request"),
    "an unknown view": (send(PNG, params={"view_position": "pa"}), "malformed_request"),
    "an unknown operating point": (send(PNG, params={"operating_point": "best"}),
    "malformed_request"),
    "a deadline of nothing": (send(PNG, headers={"x-request-timeout-seconds": "0"}),
    "malformed_request"),
    "a deadline that is no number": (send(PNG, headers={"x-request-timeout-seconds": "soon"}),
    "malformed_request"),
    "an unknown model": (send(PNG, params={"model": "crystal-ball"}), "unknown_model"),
    "an unknown model's description": (get("/models/crystal-ball"), "unknown_model"),
    "an unknown model's card": (get("/models/crystal-ball/card"), "unknown_model"),
    "an unknown path": (get("/wp-admin"), "not_found"),
    "a path with a slash too many": (get("/models/"), "not_found"),
    "an unknown file of the docs": (get("/docs/assets/nothing.js"), "not_found"),
    "a wrong method": (get("/predict"), "method_not_allowed"),
    "a wrong method on the page": (post("/"), "method_not_allowed"),
    "a client that reads only XML": (send(PNG, headers={"accept": "text/xml"}), "not_acceptable"),
    "a client that refuses JSON though it takes the rest": (
        send(PNG, headers={"accept": "application/json;q=0, */*"}), "not_acceptable",
    ),
    "a deadline given twice": (
        send(PNG, headers=[("x-request-timeout-seconds", "30"), ("x-request-timeout-seconds",
        "1")]), "malformed_request",
    ),
    "a parameter of a picture": (send(PNG, path="/preview?heatmap=true"), "malformed_request"),
    "a client that refuses JSON": (send(PNG, headers={"accept": "text/xml, application/json;q=0"}),
    "not_acceptable"),
    "a body over the limit": (send(b"\0" * 200_000), "too_large"),
    "a file a little over the limit": (send(b"\0" * 20_001), "too_large"),
    "more pixels than the limit": (send(make_png(chest(256, 256) * 0)), "too_large"),
    "a text file": (send(b"hello, this is no image at all" * 9), "unsupported_format"),
    "a body of JSON": (post(json={}), "unsupported_format"),
    "what curl sends by default": (
        post(content=PNG, headers={"content-type": "application/x-www-form-urlencoded"}),
        "unsupported_format",
    ),
    "a compressed body": (post(content=PNG, headers={"content-encoding": "gzip"}),
    "unsupported_format"),
    "a body said to be compressed by the second of two headers": (
        post(content=PNG, headers=[("content-encoding", "identity"), ("content-encoding", "gzip")]),
        "unsupported_format",
    ),
    "a batch that is no form": (post("/predict/batch", content=PNG), "unsupported_format"),
    "a truncated JPEG": (send(make_jpeg(chest(128, 128))[:-900]), "corrupt_image"),
    "a tiny image": (send(make_png(chest(40, 40))), "not_a_radiograph"),
    "a CT": (send(make_dicom(chest(64, 64), Modality="CT")), "not_a_radiograph"),
    "a foot": (send(make_dicom(chest(64, 64), BodyPartExamined="FOOT")), "not_a_chest"),
    "a lateral view": (send(make_dicom(chest(64, 64), ViewPosition="LL")), "not_frontal"),
}  # fmt: skip


async def test_every_refusal_is_a_problem_of_its_own_code(
    store: Path, subtests: pytest.Subtests
) -> None:
    async with serving(store, **LOW_LIMITS) as served:
        for name, (ask, code) in REFUSALS.items():
            with subtests.test(name):
                assert_problem(await ask(served), code)


async def test_decoding_that_takes_too_long_is_stopped(store: Path) -> None:
    async with serving(store, decode_seconds=0.001) as served:
        response = await send(make_dicom(chest(1200, 1200), syntax=JPEG2000Lossless))(served)

    assert_problem(response, "decode_limit")


async def test_a_graph_that_fails_is_the_only_500_and_leaks_nothing(
    store: Path, graph: FakeGraph
) -> None:
    def failure(_: Any) -> None:
        raise GraphError("secret of the house")

    async with serving(store, opener=graph.open) as served:
        graph.failure = failure
        response = await send(PNG)(served)

    assert "secret" not in assert_problem(response, "inference_failed")["detail"]


async def test_a_crash_outside_every_route_is_a_problem_too(store: Path) -> None:
    async with serving(store) as served:
        served.app.state.service = None
        response = await get("/models")(served)

    assert_problem(response, "inference_failed")


async def test_a_crash_of_any_layer_but_the_log_is_a_problem_too(store: Path) -> None:
    async with serving(store) as served:
        layers: list[object] = [layer.cls for layer in served.app.user_middleware]

    assert layers[:2] == [TelemetryMiddleware, CrashMiddleware]


async def test_what_does_not_fit_is_refused_with_a_time_to_come_back(
    store: Path, graph: FakeGraph
) -> None:
    async with serving(store, opener=graph.open, queue_capacity=2, engine_lanes=1) as served:
        warmed = len(graph.batch_sizes)
        graph.gate.clear()
        taken = [asyncio.create_task(send(PNG)(served)) for _ in range(2)]
        await until(lambda: len(graph.batch_sizes) == warmed + 1)
        await asyncio.sleep(0.05)
        refused = await send(PNG)(served)
        graph.gate.set()
        answers = await asyncio.gather(*taken)

    assert_problem(refused, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_uploads_that_together_take_too_much_memory_are_refused_until_others_end(
    store: Path, graph: FakeGraph
) -> None:
    size = len(PNG)
    limits = {
        "max_upload_bytes": size + 1000,
        "max_batch_bytes": size + 1000,
        "max_uploads_bytes": size + 2000,
    }
    async with serving(store, opener=graph.open, **limits) as served:
        graph.gate.clear()
        taken = asyncio.create_task(send(PNG)(served))
        await until(lambda: served.app.state.service.upload_budget.held_bytes > size)
        refused = [
            await send(PNG)(served),
            await post("/predict/batch", files={"files": PNG})(served),
        ]
        refused += [await post("/predict/dicom?result=sr", content=iter_once(PNG))(served)]
        graph.gate.set()
        answers = await taken, await send(PNG)(served)
        metrics = (await get("/metrics")(served)).text

    for answer in refused:
        assert_problem(answer, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answers] == [200, 200]
    assert 'cxr_rejections_total{reason="overloaded"} 3.0' in metrics


async def iter_once(data: bytes) -> AsyncIterator[bytes]:
    """A body whose length nobody announces."""
    yield data


async def test_a_tta_request_is_admitted_whole_or_refused_whole(
    store: Path, graph: FakeGraph
) -> None:
    async with serving(store, opener=graph.open, queue_capacity=2) as served:
        graph.gate.clear()
        running = asyncio.create_task(send(PNG)(served))
        await until(lambda: served.classifier.admission.num_in_flight == 1)
        refused = await send(PNG, params={"tta": "true"})(served)
        graph.gate.set()
        await running
        answer = await send(PNG, params={"tta": "true"})(served)

    assert_problem(refused, "overloaded")
    assert answer.status_code == 200


async def test_a_service_without_a_good_bundle_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "bright" / "1").mkdir(parents=True)
    async with serving(tmp_path) as served:
        readiness = await get("/readyz")(served)
        answer = await send(PNG)(served)
        liveness = await get("/livez")(served)

    assert "version 1 is refused" in assert_problem(readiness, "not_ready")["detail"]
    assert_problem(answer, "not_ready")
    assert int(answer.headers["retry-after"]) >= 1
    assert liveness.status_code == 200


async def test_a_service_that_is_going_down_takes_nothing_more(store: Path) -> None:
    async with serving(store) as served:
        served.classifier.drain()
        assert_problem(await send(PNG)(served), "not_ready")
        assert_problem(await get("/readyz")(served), "not_ready")
        assert (await get("/livez")(served)).status_code == 200


async def test_a_dead_lane_shows_in_liveness_and_readiness(store: Path, graph: FakeGraph) -> None:
    class Fatal(BaseException):
        pass

    def failure(_: Any) -> None:
        raise Fatal

    async with serving(store, opener=graph.open, engine_lanes=1) as served:
        graph.failure = failure
        assert_problem(await send(PNG)(served), "inference_failed")
        assert_problem(await get("/livez")(served), "not_ready")
        assert_problem(await get("/readyz")(served), "not_ready")
        assert_problem(await send(PNG)(served), "not_ready")


async def test_an_answer_that_would_come_too_late_is_given_up(
    store: Path, graph: FakeGraph
) -> None:
    async with serving(store, opener=graph.open, engine_lanes=1) as served:
        graph.gate.clear()
        response = await send(PNG, headers={"x-request-timeout-seconds": "0.2"})(served)
        graph.gate.set()

    assert_problem(response, "deadline_exceeded")


async def test_the_default_deadline_holds_where_the_request_sets_none(
    store: Path, graph: FakeGraph
) -> None:
    async with serving(store, opener=graph.open, default_timeout_seconds=0.2) as served:
        graph.gate.clear()
        response = await send(PNG)(served)
        graph.gate.set()

    assert_problem(response, "deadline_exceeded")


async def test_a_body_that_does_not_arrive_in_time_is_given_up(store: Path) -> None:
    async with listening(store, receive_timeout_seconds=0.2) as served:
        head = (
            b"POST /predict HTTP/1.1\r\nhost: [::1]\r\ncontent-type: image/png\r\ncontent-length: "
            b"9999\r\n\r\n12"
        )
        answer = await converse(served, head)

    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"slow_client"' in answer


async def test_a_body_without_a_length_is_cut_at_the_limit(store: Path) -> None:
    async with listening(store, max_upload_bytes=2000) as served:
        chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        head = (
            b"POST /predict HTTP/1.1\r\nhost: [::1]\r\ncontent-type: "
            b"image/png\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        answer = await converse(served, head + 3 * chunk)

    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"too_large"' in answer


async def test_a_body_that_is_announced_too_long_is_refused_before_it_is_sent(store: Path) -> None:
    async with listening(store, max_upload_bytes=2000) as served:
        head = (
            b"POST /predict HTTP/1.1\r\nhost: [::1]\r\ncontent-type: image/png\r\ncontent-length: "
            b"99999999\r\n\r\n"
        )
        answer = await converse(served, head)

    assert b'"code":"too_large"' in answer


async def test_bytes_that_are_no_http_get_a_problem_too(store: Path) -> None:
    async with listening(store) as served:
        answer = await converse(served, b"\x16\x03\x01 this is no HTTP\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"content-type: application/problem+json" in answer
    assert b'"code":"malformed_request"' in answer


async def converse(served: Served, request: bytes) -> bytes:
    """Send bytes over a connection of their own and read what comes until it falls silent."""
    url = served.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    answer = b""
    try:
        while b"}" not in answer:
            async with asyncio.timeout(5):
                answer += await reader.read(4096)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return answer
