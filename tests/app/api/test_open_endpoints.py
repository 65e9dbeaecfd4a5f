"""What is open to everybody: HEAD, the methods that are allowed, files of the API page, metrics."""

import asyncio
from pathlib import Path

import pytest

from app.api.cached_metrics import CachedMetrics
from app.telemetry import Metrics
from tests.app.serving import Served, listening

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/models", "/models/bright", "/models/bright/card", "/livez", "/readyz",
     "/openapi.json", "/docs", "/"],
)  # fmt: skip
async def test_head_is_answered_as_get_without_a_body(store: Path, path: str) -> None:
    async with listening(store) as served:
        head = await served.client.head(path)
        got = await served.client.get(path)

    assert head.status_code == got.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/livez", {"GET", "HEAD"}), ("/metrics", {"GET", "HEAD"}), ("/models", {"GET", "HEAD"}),
     ("/openapi.json", {"GET", "HEAD"}), ("/", {"GET", "HEAD"})],
)  # fmt: skip
async def test_another_method_is_told_all_that_are_allowed(
    served: Served, path: str, allowed: set[str]
) -> None:
    answer = await served.client.delete(path)

    assert answer.status_code == 405
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == allowed


async def test_head_of_what_takes_post_alone_is_not_allowed(served: Served) -> None:
    answer = await served.client.head("/predict")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "file", ["", "index.html", "swagger-initializer.js", "oauth2-redirect.html", "../__init__.py"]
)
async def test_no_further_file_of_swagger_ui_is_served(served: Served, file: str) -> None:
    answer = await served.client.get(f"/docs/assets/{file}")

    assert answer.status_code == 404


@pytest.mark.parametrize("file", ["swagger-ui.css", "swagger-ui-bundle.js"])
async def test_files_of_swagger_ui_carry_the_headers_of_every_page(
    served: Served, file: str
) -> None:
    answer = await served.client.get(f"/docs/assets/{file}")

    assert answer.status_code == 200
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_swagger_ui_is_of_its_fifth_edition(served: Served) -> None:
    script = (await served.client.get("/docs/assets/swagger-ui-bundle.js")).text

    assert 'PACKAGE_VERSION:"5.' in script


@pytest.mark.parametrize("name", ["age_years", "prevalence"])
@pytest.mark.parametrize("value", ["5_0", "-0", "+5", "%205", "5%20", "1e1", "٥", "0x5", "5f"])
async def test_a_number_is_written_in_decimal_digits(
    served: Served, png: bytes, name: str, value: str
) -> None:
    answer = await served.client.post(f"/predict?{name}={value}", content=png)

    assert answer.status_code == 400
    assert "must be a decimal number" in answer.json()["detail"]


@pytest.mark.parametrize("value", ["1_0", "-0", "+5", "1e1"])
async def test_a_deadline_is_written_in_decimal_digits(
    served: Served, png: bytes, value: str
) -> None:
    headers = {"x-request-timeout-seconds": value}
    answer = await served.client.post("/predict", content=png, headers=headers)

    assert answer.status_code == 400


async def test_of_many_unknown_parameters_the_first_ten_are_named(
    served: Served, png: bytes
) -> None:
    query = "&".join(f"p{number}=1" for number in range(3000))
    answer = await served.client.post(f"/predict?{query}", content=png)

    assert answer.status_code == 400
    assert len(answer.text) < 1000
    assert answer.json()["detail"].endswith("and 2990 more")


PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Counting(Metrics):
    """Metrics that count how often they are rendered."""

    def __init__(self) -> None:
        super().__init__()
        self.num_rendered = 0

    def render(self, accept: str) -> tuple[bytes, str]:
        self.num_rendered += 1
        return super().render(accept)


async def test_metrics_are_rendered_a_few_times_a_second_however_often_they_are_asked_for() -> None:
    metrics = Counting()
    now = 0.0
    cached = CachedMetrics(metrics, lambda: now)
    for _ in range(200):
        await cached.text("")
    assert metrics.num_rendered == 6  # the first one, and a burst of five
    now += 0.5
    metrics.rejections.labels("overloaded").inc()
    texts = {(await cached.text(""))[0] for _ in range(200)}

    assert metrics.num_rendered == 7
    assert len(texts) == 1
    assert b'cxr_rejections_total{reason="overloaded"} 1.0' in texts.pop()


async def test_scrapers_that_come_together_share_one_rendering() -> None:
    metrics = Counting()
    cached = CachedMetrics(metrics)
    await asyncio.gather(*(cached.text("") for _ in range(50)))

    assert metrics.num_rendered == 1


async def test_each_format_of_metrics_is_kept_for_itself() -> None:
    cached = CachedMetrics(Metrics())
    plain, plain_type = await cached.text("text/plain")
    other, other_type = await cached.text("application/openmetrics-text; version=1.0.0")

    assert plain_type != other_type
    assert plain != other
    assert other.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "version", ["1.0.1", "2.0.0", "1.0.0.0", "999.0.0", "a.b.c", "1.0.0; escaping=no-such"]
)
async def test_a_scrapers_own_words_make_no_text_of_their_own(version: str) -> None:
    metrics = Counting()
    cached = CachedMetrics(metrics, lambda: 0.0)
    for kind in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        await cached.text(kind)
    num_rendered = metrics.num_rendered
    for number in range(50):
        for kind in ("text/plain", "application/openmetrics-text"):
            _, media_type = await cached.text(f"{kind}; version={version}{number}")
            assert version not in media_type

    assert metrics.num_rendered <= num_rendered + 5  # the burst that is left, for both together


@pytest.mark.parametrize(
    ("accept", "is_open_metrics"),
    [
        (PROMETHEUS_3, True),
        ("application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5", True),
        ("text/plain;version=0.0.4, application/openmetrics-text", True),
        ("application/openmetrics-text; version=0.0.1", False),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", False),
        ("*/*", False),
    ],
)  # fmt: skip
async def test_prometheus_gets_the_format_that_it_asks_for(
    accept: str,
    is_open_metrics: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    body, media_type = await CachedMetrics(Metrics()).text(accept)

    assert media_type.startswith("application/openmetrics-text") is is_open_metrics
    assert body.endswith(b"# EOF\n") is is_open_metrics
