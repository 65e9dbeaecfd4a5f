"""Which operating point decides: the request's, else the service's, else the bundle's."""

from pathlib import Path

import pytest

from tests.app.serving import serving

pytestmark = pytest.mark.anyio


async def test_the_setting_decides_where_a_request_names_none(store: Path, png: bytes) -> None:
    async with serving(store, operating_point="screen") as served:
        unnamed = (await served.client.post("/predict", content=png)).json()
        named = (
            await served.client.post(
                "/predict", content=png, params={"operating_point": "balanced"}
            )
        ).json()
        described = (await served.client.get("/models/bright")).json()["current"]

    assert (unnamed["operating_point"], unnamed["threshold"]) == ("screen", 0.2)
    assert (named["operating_point"], named["threshold"]) == ("balanced", 0.5)
    assert described["default_operating_point"] == "screen"


async def test_a_model_without_the_services_point_answers_only_who_names_one(
    store: Path, png: bytes
) -> None:
    async with serving(store, operating_point="rule_in") as served:
        refused = await served.client.post("/predict", content=png)
        answered = await served.client.post(
            "/predict", content=png, params={"operating_point": "screen"}
        )
        readiness = await served.client.get("/readyz")

    assert refused.json()["code"] == "malformed_request"
    assert "balanced, screen" in refused.json()["detail"]
    assert answered.status_code == 200
    assert (readiness.status_code, "CXR_OPERATING_POINT" in readiness.json()["detail"]) == (
        503,
        True,
    )
