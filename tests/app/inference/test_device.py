"""Serving processes and the device process, both ends in one event loop over a real socket."""

import asyncio
import math
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InferenceFailed, NotReady, Overloaded
from app.inference.device.device_client import DeviceClient
from app.inference.device.device_queue import DeviceQueue
from app.inference.device.device_server import DeviceService
from app.inference.device.open_versions import OpenVersions
from app.inference.device.run_watch import RunWatch
from app.inference.device.shared_memory_handover import send_shared_memory
from app.inference.device.shared_memory_slots import SharedSlots
from app.inference.device.socket_records import RECORD, Kind, Record, RecordReader
from app.inference.pending_request import InferenceResult
from app.models.tuning import make_tuner
from app.settings import Settings
from app.telemetry import Metrics
from cxr.bundle import Bundle, read_bundle
from cxr.errors import BundleError, GraphError
from cxr.metadata_features import COLUMNS
from tests.app.fake_graph import FakeGraph
from tests.app.serving import until
from tests.bundles import write_made_bundle

pytestmark = pytest.mark.anyio

SIDE = 32
BAD = 13


@dataclass
class Device:
    """A device process's insides, on a socket in a folder."""

    folder: Path
    store: Path
    graph: FakeGraph
    listener: socket.socket
    status: int | None = None
    service: DeviceService | None = None
    versions: OpenVersions | None = None
    task: asyncio.Task[None] | None = None
    clients: list[DeviceClient] = field(default_factory=list)

    def start(self) -> None:
        settings = Settings(
            store=self.store,
            cache_dir=Path(os.devnull) / "cache",
            engine_lanes=1,
            engine_threads=1,
            max_batch=8,
        )
        tuner = make_tuner(settings, self.graph.open, cores=1)
        self.versions = OpenVersions(settings, Metrics(), tuner)
        self.service = DeviceService(self.versions, self.listener)
        self.task = asyncio.create_task(self._run(self.service))

    async def _run(self, service: DeviceService) -> None:
        self.status = await service.run()

    async def crash(self) -> None:
        """End all connections at once, as the end of a process does."""
        assert self.service is not None
        assert self.task is not None
        for front in list(self.service._fronts):
            front.close()
        self.service.end()
        await self.task

    @property
    def bundle(self) -> Bundle:
        return read_bundle(self.store / "bright" / "1")


@pytest.fixture
async def device(tmp_path: Path, graph: FakeGraph) -> AsyncIterator[Device]:
    store = tmp_path / "store"
    write_made_bundle(store, "bright", 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        device = Device(tmp_path, store, graph, listener)
        device.start()
        yield device
        graph.gate.set()
        await device.crash()


@asynccontextmanager
async def front(
    device: Device, num_slots: int = 16
) -> AsyncIterator[tuple[DeviceClient, DeviceQueue]]:
    """Be a serving process that has opened the model."""
    client = DeviceClient(device.folder / "sock", num_slots)
    async with client.connected():
        remote, plan = await asyncio.to_thread(client.open, device.bundle)
        queue = DeviceQueue(remote, Metrics(), plan, capacity=64)
        yield client, queue


def image(grey: int) -> NDArray[np.uint8]:
    return np.full((1, SIDE, SIDE), grey, np.uint8)


def ask(
    queue: DeviceQueue, *greys: int, start_by: float = math.inf
) -> asyncio.Task[InferenceResult]:
    views = np.concatenate([image(grey) for grey in greys])
    return asyncio.create_task(queue.run(views, start_by=start_by))


def logits(result: InferenceResult) -> list[float]:
    return [round(float(value) * 255) for value in result.outputs.logit_N]


async def hold_runner(device: Device, queue: DeviceQueue) -> asyncio.Task[InferenceResult]:
    """Keep the only run slot busy at the gate."""
    device.graph.gate.clear()
    device.graph.batch_sizes.clear()
    held = ask(queue, 1)
    await until(lambda: device.graph.batch_sizes)
    return held


async def waiting(device: Device, number: int) -> None:
    """Wait until so many images are queued in the device process."""
    assert device.versions is not None
    (version,) = device.versions._open.values()
    await until(lambda: version.batcher._num_waiting == number)


async def test_a_request_without_a_map_gets_none_and_draws_none(device: Device) -> None:
    async with front(device) as (_, queue):
        await ask(queue, 10)
        device.graph.drew_maps.clear()
        result = await queue.run(image(20), start_by=math.inf, with_map=False)

    assert device.graph.drew_maps == [False]
    assert logits(result) == [20]
    assert result.outputs.cam_Nhw.shape == (1, 0, 0)


async def test_each_view_is_answered_with_its_own_outputs(device: Device) -> None:
    async with front(device) as (_, queue):
        result = await ask(queue, 10, 20, 30)

    assert logits(result) == [10, 20, 30]
    assert result.outputs.cam_Nhw.shape == (3, 4, 4)
    assert result.outputs.novelty_N.tolist() == [0, 0, 0]


async def test_images_of_several_processes_run_in_one_batch(device: Device) -> None:
    async with front(device) as (_, one), front(device) as (_, other):
        held = await hold_runner(device, one)
        asked = [ask(one, 2), ask(other, 3), ask(other, 4)]
        await waiting(device, 3)
        device.graph.gate.set()
        answers = [logits(await answer) for answer in asked]
        await held

    assert device.graph.batch_sizes == [1, 3]
    assert answers == [[2], [3], [4]]


async def test_several_processes_share_one_open_version_until_the_last_gives_it_back(
    device: Device,
) -> None:
    assert device.versions is not None
    async with front(device) as (_, one):
        async with front(device) as (_, other):
            (version,) = device.versions._open.values()
            assert version.num_users == 2
            await other.close()
            await until(lambda: version.num_users == 1)
            assert logits(await ask(one, 9)) == [9]
        await one.close()
        await until(lambda: not device.versions._open)


async def test_a_version_that_is_released_while_it_is_opened_again_is_closed(
    device: Device,
) -> None:
    async with front(device) as (client, _):
        await device.crash()
        device.graph.gate.clear()
        device.graph.batch_sizes.clear()
        device.start()
        await until(lambda: device.graph.batch_sizes)
        (remote,) = client._graphs.values()
        client.release(remote)
        device.graph.gate.set()
        async with front(device):
            assert device.versions is not None
            (version,) = device.versions._open.values()
            await until(lambda: version.num_users == 1)


async def test_connections_are_taken_again_after_there_were_no_file_descriptors(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as early:
        resource.setrlimit(resource.RLIMIT_NOFILE, (early.fileno() + 1, hard))
        try:
            early.connect(str(device.folder / "sock"))
            await until(lambda: "can't be taken" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with front(device) as (_, queue):
        assert logits(await ask(queue, 9)) == [9]


async def test_a_process_that_leaves_loses_only_its_own_images(device: Device) -> None:
    async with front(device) as (_, staying):
        async with front(device) as (_, leaving):
            held = await hold_runner(device, staying)
            lost = ask(leaving, 2)
            kept = ask(staying, 3)
            await waiting(device, 2)
        with pytest.raises(NotReady):
            await lost
        await waiting(device, 1)
        device.graph.gate.set()

        assert logits(await kept) == [3]
        assert logits(await held) == [1]
    assert device.graph.batch_sizes == [1, 1]


async def test_an_image_that_nobody_waits_for_leaves_the_queue_and_its_slot(device: Device) -> None:
    async with front(device, num_slots=2) as (_, queue):
        held = await hold_runner(device, queue)
        given_up = ask(queue, 2)
        await waiting(device, 1)
        given_up.cancel()
        with suppress(asyncio.CancelledError):
            await given_up
        await waiting(device, 0)
        device.graph.gate.set()
        await held

        assert logits(await ask(queue, 5)) == [5]
        assert 2 not in device.graph.batch_sizes


async def test_more_images_than_slots_are_refused(device: Device) -> None:
    async with front(device, num_slots=2) as (_, queue):
        held = await hold_runner(device, queue)
        queued = ask(queue, 2)
        await waiting(device, 1)
        with pytest.raises(Overloaded):
            await ask(queue, 3)
        device.graph.gate.set()
        await held
        await queued


async def test_an_image_that_waits_beyond_its_deadline_is_late(device: Device) -> None:
    async with front(device) as (_, queue):
        held = await hold_runner(device, queue)
        late = ask(queue, 2, start_by=0.0)
        await waiting(device, 1)
        device.graph.gate.set()
        with pytest.raises(DeadlineExceeded):
            await late
        await held


async def test_only_the_image_on_which_the_graph_fails_has_no_answer(device: Device) -> None:
    def fail(batch_NHW: NDArray[np.uint8]) -> None:
        if (batch_NHW == BAD).all(axis=(1, 2)).any():
            raise GraphError("bad")

    device.graph.failure = fail
    async with front(device) as (_, queue):
        held = await hold_runner(device, queue)
        bad = ask(queue, BAD)
        good = ask(queue, 7)
        await waiting(device, 2)
        device.graph.gate.set()
        with pytest.raises(InferenceFailed):
            await bad

        assert logits(await good) == [7]
        await held


async def test_requests_that_wait_fail_at_once_if_the_process_ends_and_later_ones_are_answered(
    device: Device,
) -> None:
    async with front(device) as (_, queue):
        held = await hold_runner(device, queue)
        await device.crash()
        with pytest.raises(NotReady) as refused:
            await held
        assert refused.value.retry_after_s == 2
        await until(lambda: queue.capacity.pause_reason is not None)
        with pytest.raises(NotReady) as later:
            queue.capacity.check_open()
        assert later.value.retry_after_s == 2

        device.graph.gate.set()
        device.start()
        await until(lambda: queue.capacity.pause_reason is None)
        assert logits(await ask(queue, 8)) == [8]


async def test_a_version_that_is_gone_when_the_process_is_replaced_pauses_until_it_is_back(
    device: Device,
) -> None:
    async with front(device) as (_, queue):
        away = device.store.with_name("away")
        await device.crash()
        device.store.rename(away)
        device.start()
        await until(lambda: "bundle.json" in (queue.capacity.pause_reason or ""))
        away.rename(device.store)
        await until(lambda: queue.capacity.pause_reason is None)

        assert logits(await ask(queue, 8)) == [8]


async def test_a_version_that_the_device_process_reads_otherwise_is_refused(device: Device) -> None:
    asked_for = device.bundle
    client = DeviceClient(device.folder / "sock", 4)
    other = Bundle(
        asked_for.path,
        asked_for.manifest.model_copy(update={"finding": "another"}),
        asked_for.golden,
    )
    async with client.connected():
        with pytest.raises(BundleError, match="was changed"):
            await asyncio.to_thread(client.open, other)
    assert device.versions is not None
    assert not device.versions._open


async def test_a_remote_graph_answers_a_batch_from_any_thread(device: Device) -> None:
    async with front(device) as (_, queue):
        batch_NHW = np.concatenate([image(4), image(6)])
        outputs = await asyncio.to_thread(queue._graph.run, batch_NHW)

    assert np.round(outputs.logit_N * 255).tolist() == [4, 6]


async def test_metadata_reaches_the_graph(device: Device) -> None:
    device.graph.num_facts = len(COLUMNS)
    write_made_bundle(device.store, "known", 1, metadata=COLUMNS)
    bundle = read_bundle(device.store / "known" / "1")
    client = DeviceClient(device.folder / "sock", 4)
    async with client.connected():
        remote, plan = await asyncio.to_thread(client.open, bundle)
        queue = DeviceQueue(remote, Metrics(), plan, capacity=4)
        facts_M = np.arange(len(COLUMNS), dtype=np.float32)
        result = await queue.run(image(0), start_by=math.inf, metadata_M=facts_M)

    assert result.outputs.logit_N.tolist() == [15.0]


@pytest.mark.parametrize(
    "records",
    [
        [Record(Kind.RUN, version=5, slot=0)],
        [Record(Kind.DONE, slot=0)],
        [Record(99)],
        [Record(Kind.OPEN, 1, number=2**31)],
    ],
)
async def test_a_process_that_talks_nonsense_is_cut_off_alone(
    device: Device, records: list[Record]
) -> None:
    async with front(device) as (_, queue):
        reader, writer = await raw_front(device)
        for record in records:
            writer.write(RECORD.pack(*record))
        rest = b""
        with suppress(ConnectionResetError):
            rest = await reader.read()
        writer.close()

        assert len(rest) in (0, RECORD.size)  # at most its welcome
        assert logits(await ask(queue, 3)) == [3]


async def raw_front(device: Device) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as a serving process does, and say nothing more."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(device.folder / "sock"))
    slots, file = SharedSlots.create(2)
    send_shared_memory(link, file, slots.num_slots)
    os.close(file)
    return await asyncio.open_unix_connection(sock=link)


async def test_a_connection_without_shared_memory_is_closed(device: Device) -> None:
    reader, writer = await asyncio.open_unix_connection(str(device.folder / "sock"))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()

    async with front(device) as (_, queue):
        assert logits(await ask(queue, 3)) == [3]


async def test_the_process_ends_when_it_is_told_to_and_nobody_is_connected(device: Device) -> None:
    assert device.service is not None
    assert device.task is not None
    async with AsyncExitStack() as stack:
        _, queue = await stack.enter_async_context(front(device))
        device.service.end()
        assert logits(await ask(queue, 3)) == [3]
        assert not device.task.done()
    await device.task

    assert device.status == 0


async def test_the_process_ends_with_a_failure_if_a_run_hangs(device: Device) -> None:
    assert device.versions is not None
    assert device.task is not None
    device.versions.run_watch._max_ticks = 1
    async with front(device) as (_, queue):
        held = await hold_runner(device, queue)
        await device.task
        device.graph.gate.set()
        held.cancel()

    assert device.status == 1


def test_a_run_hangs_by_ticks_and_not_by_the_clock() -> None:
    watch = RunWatch(max_ticks=3)
    first = watch.begin()
    for _ in range(3):
        watch.tick()
    second = watch.begin()
    before = watch.is_stuck
    watch.tick()
    after = watch.is_stuck
    watch.end(first)

    assert (before, after, watch.is_stuck) == (False, True, False)
    watch.end(second)


def test_records_are_cut_from_any_pieces_of_a_stream() -> None:
    body = b'{"a": 1}'
    sent = [(Record(Kind.RUN, 1, 2, 0, 1.5), b""), (Record(Kind.OPENED, 1, number=len(body)), body)]
    stream = b"".join(RECORD.pack(*record) + text for record, text in sent) * 3
    reader = RecordReader()
    got = [found for byte in stream for found in reader.feed(bytes([byte]))]

    assert got == sent * 3


def test_shared_memory_that_could_shrink_is_refused() -> None:
    file = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(file, 2 * 2**21)
    with pytest.raises(ValueError, match="not as it should be"):
        SharedSlots.attach(file, 2)
    os.close(file)


@pytest.fixture
def shared() -> Iterator[tuple[SharedSlots, int]]:
    slots, file = SharedSlots.create(3)
    yield slots, file
    os.close(file)


def test_shared_memory_of_another_size_than_was_said_is_refused(
    shared: tuple[SharedSlots, int],
) -> None:
    with pytest.raises(ValueError, match="not as it should be"):
        SharedSlots.attach(shared[1], 4)
