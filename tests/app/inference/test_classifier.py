import asyncio
import time
from pathlib import Path

import pytest

from app.errors import DeadlineExceeded
from app.inference.classifier import by_deadline
from tests.app.serving import serving
from tests.bundles import write_made_bundle


@pytest.mark.anyio
async def test_work_is_stopped_at_its_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        async with by_deadline(time.monotonic() + 0.02):
            await asyncio.sleep(5)


@pytest.mark.anyio
async def test_work_whose_deadline_passed_never_begins() -> None:
    with pytest.raises(DeadlineExceeded):
        async with by_deadline(time.monotonic() - 1):
            raise AssertionError


@pytest.mark.anyio
async def test_a_pause_of_another_model_leaves_the_service_ready(tmp_path: Path) -> None:
    for model in ("bright", "other"):
        write_made_bundle(tmp_path / "store", model, 1)
    async with serving(tmp_path / "store") as served:
        statuses = []
        for model in ("other", "bright"):
            version = served.classifier.store.current(model)
            served.classifier._queues[version].capacity.pause("It is away.", retry_after_s=2)
            statuses.append((await served.client.get("/readyz")).status_code)

    assert statuses == [200, 503]
