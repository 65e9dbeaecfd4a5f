"""Three replicas in containers behind Debian's nginx and HAProxy: nothing is lost, and no proxy
multiplies refusals."""

import asyncio
from pathlib import Path

import pytest

from bench.replica_containers import container_fleet
from bench.replicas import Outcome, experiments
from tests.bundles import write_made_bundle
from tests.containers.compose import IMAGE, Stack

pytestmark = pytest.mark.timeout(900)

RATE = 10.0
MAX_FACTOR = 1.1


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_no_request_is_lost_and_no_refusal_is_multiplied(
    kind: str, stack: Stack, tmp_path: Path, figures: dict[str, str]
) -> None:
    store = tmp_path / "store"
    write_made_bundle(store, "bright", 1)
    failed = []

    async def tour() -> None:
        with container_fleet(kind, store, tmp_path, IMAGE) as fleet:
            async for result in experiments(fleet, RATE):
                name, _, rest = str(result).partition(": ")
                figures[f"{kind}: {name}"] = rest
                if isinstance(result, Outcome):
                    is_good = result.num_lost == 0 and result.statuses[200] > 0
                else:  # with 503 both proxies send refusals again, which the documents warn of
                    is_good = result.refusal == "503" or result.factor <= MAX_FACTOR
                failed.extend([] if is_good else [str(result)])

    asyncio.run(tour())
    assert failed == []
