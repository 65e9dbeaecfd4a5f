"""A store that changes under the running service, over a real socket."""

import asyncio
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.models.store import StoredModel
from cxr.bundle import Bundle
from cxr.graph import Graph, Runtime, open_graph
from tests.app.fake_graph import FakeGraph
from tests.app.models.test_store import spoil
from tests.app.serving import Served, listening, serving, until
from tests.bundles import write_made_bundle

pytestmark = pytest.mark.anyio

POLL_S = 0.05
SLOW_POLL_S = 0.2


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A store of this test's own, whose model `bright` has version 1."""
    write_made_bundle(tmp_path / "store", "bright", 1)
    return tmp_path / "store"


def model(served: Served) -> StoredModel:
    return served.classifier.store.model("bright")


def version(served: Served) -> int:
    return served.classifier.store.current("bright").manifest.version


async def until_served(served: Served, wanted: int) -> None:
    await until(lambda: version(served) == wanted)


@dataclass
class Load:
    """Senders that post one image after the other, and note what became of each."""

    served: Served
    image: bytes
    statuses: list[int] = field(default_factory=list)
    wrong: list[tuple[int, int, int]] = field(default_factory=list)
    """Answers that name a version which did not serve between sending and answering: from, named,
    to."""

    @contextmanager
    def running(self, senders: int = 4) -> Iterator[None]:
        tasks = [asyncio.create_task(self._send()) for _ in range(senders)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _send(self) -> None:
        while True:
            before = version(self.served)
            answer = await self.served.client.post("/predict", content=self.image)
            self.statuses.append(answer.status_code)
            named = answer.json()["model"]["version"] if answer.status_code == 200 else 0
            if not before <= named <= version(self.served):
                self.wrong.append((before, named, version(self.served)))


@pytest.mark.slow
async def test_twenty_swaps_under_load_lose_no_request_and_name_the_version_that_served(
    shelf: Path, png: bytes
) -> None:
    async with listening(shelf, store_poll_seconds=POLL_S) as served:
        load = Load(served, png)
        with load.running():
            for number in range(2, 22):
                write_made_bundle(shelf, "bright", number)
                await until_served(served, number)
        answer = await served.client.post("/predict", content=png)

    assert answer.json()["model"]["version"] == 21
    assert set(load.statuses) == {200}
    assert len(load.statuses) > 40
    assert load.wrong == []


async def test_of_twenty_versions_only_the_last_stays_in_memory(shelf: Path, png: bytes) -> None:
    graphs: list[weakref.ref[Graph]] = []

    def opener(bundle: Bundle, runtime: Runtime) -> Graph:
        graph = open_graph(bundle, runtime)
        graphs.append(weakref.ref(graph))
        return graph

    async with listening(shelf, opener=opener, store_poll_seconds=POLL_S) as served:
        for number in range(2, 22):
            write_made_bundle(shelf, "bright", number)
            await until_served(served, number)
            await served.client.post("/predict", content=png)
        await until(lambda: sum(graph() is not None for graph in graphs) == 1)

    assert len(graphs) == 22  # the first was also opened to be measured


async def test_a_request_that_began_on_the_old_version_ends_on_it(shelf: Path, png: bytes) -> None:
    graphs = {1: FakeGraph(), 2: FakeGraph()}

    def opener(bundle: Bundle, runtime: Runtime) -> FakeGraph:
        return graphs[bundle.manifest.version]

    async with listening(shelf, opener=opener, store_poll_seconds=POLL_S) as served:
        warm = len(graphs[1].batch_sizes)
        graphs[1].gate.clear()
        asked = asyncio.create_task(served.client.post("/predict", content=png))
        await until(lambda: len(graphs[1].batch_sizes) > warm)
        write_made_bundle(shelf, "bright", 2)
        await until_served(served, 2)
        overtaking = await served.client.post("/predict", content=png)
        graphs[1].gate.set()
        overtaken = await asked

    assert overtaking.json()["model"]["version"] == 2
    assert (overtaken.status_code, overtaken.json()["model"]["version"]) == (200, 1)


async def test_a_bad_version_leaves_the_old_one_serving_and_everyone_says_why(
    shelf: Path, png: bytes
) -> None:
    async with listening(shelf, store_poll_seconds=POLL_S) as served:
        write_spoilt(shelf, 2)
        await until(lambda: 2 in model(served).refused)
        answers = [
            await served.client.get(path) for path in ("/readyz", "/models/bright", "/metrics")
        ]
        prediction = await served.client.post("/predict", content=png)

    assert prediction.json()["model"]["version"] == 1
    ready, described, metrics = answers
    assert ready.status_code == 200
    assert re.search("version 2 is refused: .*hash", ready.json()["notes"][0])
    assert [entry["state"] for entry in described.json()["versions"]] == ["refused", "current"]
    assert 'cxr_refused_bundles{model="bright"} 1.0' in metrics.text


async def test_a_bad_version_is_opened_again_only_when_its_files_change(shelf: Path) -> None:
    opened: list[int] = []

    def opener(bundle: Bundle, runtime: Runtime) -> Graph:
        opened.append(bundle.manifest.version)
        if (bundle.path / "bad").exists():
            raise ValueError
        return open_graph(bundle, runtime)

    async with serving(shelf, opener=opener, store_poll_seconds=POLL_S) as served:
        bad = write_made_bundle(shelf.parent / "aside", "bright", 2)
        (bad / "bad").touch()
        bad.rename(shelf / "bright" / "2")
        await until(lambda: 2 in model(served).refused)
        await asyncio.sleep(0.4)
        times_opened = opened.count(2)
        (shelf / "bright" / "2" / "bad").unlink()
        await until_served(served, 2)

    assert times_opened == 1
    assert opened.count(2) == 2
    assert model(served).refused == {}


async def test_a_version_that_is_copied_slowly_is_waited_for(shelf: Path) -> None:
    async with serving(shelf, store_poll_seconds=SLOW_POLL_S) as served:
        for number in range(2, 7):
            whole = write_made_bundle(shelf.parent / "aside", "bright", number)
            refused = await copy_slowly(whole, shelf / "bright" / str(number), served)
            await until_served(served, number)
            if not refused:  # else the machine may have stalled between two pieces
                break

    assert refused == []


async def copy_slowly(whole: Path, target: Path, served: Served) -> list[int]:
    """Copy a bundle piece by piece; return the versions refused meanwhile."""
    refused: list[int] = []
    for _ in copied_pieces(whole, target):
        await asyncio.sleep(SLOW_POLL_S / 2)
        refused += model(served).refused
    return refused


def copied_pieces(whole: Path, target: Path) -> Iterator[None]:
    """Copy a bundle, and yield after each quarter of a file."""
    target.mkdir()
    for source in sorted(whole.iterdir(), reverse=True):  # the manifest comes last but one
        data = source.read_bytes()
        for part in range(4):
            with (target / source.name).open("ab") as file:
                file.write(data[part * len(data) // 4 : (part + 1) * len(data) // 4])
            yield


async def test_a_copy_that_stalled_for_long_is_taken_when_it_goes_on(shelf: Path) -> None:
    whole = write_made_bundle(shelf.parent / "aside", "bright", 2)
    async with serving(shelf, store_poll_seconds=POLL_S) as served:
        target = shelf / "bright" / "2"
        target.mkdir()
        shutil.copy(whole / "bundle.json", target)
        await until(lambda: 2 in model(served).refused)
        shutil.copytree(whole, target, dirs_exist_ok=True)
        await until_served(served, 2)


async def test_a_removed_version_falls_back_to_the_next_good_one(shelf: Path, png: bytes) -> None:
    write_spoilt(shelf, 2)
    write_made_bundle(shelf, "bright", 3)
    async with listening(shelf, store_poll_seconds=POLL_S) as served:
        load = Load(served, png)
        with load.running(senders=2):
            shutil.rmtree(shelf / "bright" / "3")
            await until_served(served, 1)
            await served.client.post("/predict", content=png)

    assert set(load.statuses) == {200}
    assert model(served).versions == (2, 1)
    assert 2 in model(served).refused


async def test_a_store_that_is_gone_changes_nothing(shelf: Path, png: bytes) -> None:
    async with listening(shelf, store_poll_seconds=POLL_S) as served:
        (shelf / "bright").rename(shelf.parent / "elsewhere")
        await until(lambda: model(served).versions == ())
        ready = await served.client.get("/readyz")
        answer = await served.client.post("/predict", content=png)

    assert (ready.status_code, answer.status_code) == (200, 200)


async def test_a_version_spoilt_in_place_goes_on_serving_from_memory_and_is_complained_of(
    shelf: Path,
) -> None:
    write_made_bundle(shelf, "bright", 2)
    async with serving(shelf, store_poll_seconds=POLL_S) as served:
        held = served.classifier.store.current("bright")
        spoil(shelf / "bright" / "2")
        await until(lambda: 2 in model(served).refused)

    assert served.classifier.store.current("bright") is held


async def test_a_model_that_comes_later_is_served(tmp_path: Path, png: bytes) -> None:
    async with listening(tmp_path, store_poll_seconds=POLL_S) as served:
        before = await served.client.get("/readyz")
        write_made_bundle(tmp_path, "bright", 1)
        await until(lambda: served.classifier.store.models != ())
        after = await served.client.post("/predict", content=png)

    assert (before.status_code, after.status_code) == (503, 200)


async def test_the_metrics_name_the_version_that_serves(shelf: Path) -> None:
    async with listening(shelf, store_poll_seconds=POLL_S) as served:
        write_made_bundle(shelf, "bright", 2)
        await until_served(served, 2)
        info = await poll_info(served, lambda found: found == {"1": 0.0, "2": 1.0})
        (shelf / "bright" / "2" / "MODEL_CARD.md").write_text(
            "# told anew\n"
        )  # the same version comes again
        held = served.classifier.store.current("bright")
        await until(lambda: served.classifier.store.current("bright") is not held)
        await asyncio.sleep(0.1)
        again = await poll_info(served, lambda found: True)

    assert info == again


async def test_a_store_is_looked_at_only_once_where_polling_is_off(shelf: Path) -> None:
    async with serving(shelf, store_poll_seconds=0) as served:
        write_made_bundle(shelf, "bright", 2)
        await asyncio.sleep(0.2)

    assert version(served) == 1


async def poll_info(served: Served, wanted: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Give `cxr_model_info` by version, as soon as it is what is wanted."""
    async with asyncio.timeout(5):
        while True:
            text = (await served.client.get("/metrics")).text
            found = {
                v: float(x) for v, x in re.findall(r'cxr_model_info{.*version="(\d+)"} (\S+)', text)
            }
            if wanted(found):
                return found


def write_spoilt(store: Path, number: int) -> None:
    """Put a version in a store at once whose graph does not match its hash."""
    aside = write_made_bundle(store.parent / "aside", "bright", number)
    spoil(aside)
    aside.rename(store / "bright" / str(number))
