"""The device process of a service: its log, its signals, its end."""

import asyncio
import signal

import uvloop

from app.cpu import usable_cores
from app.inference.device.device_server import DeviceService
from app.inference.device.open_versions import OpenVersions
from app.models.freed_memory import return_large_blocks_at_once
from app.models.tuning import GraphOpener, make_tuner
from app.server.log import configure_logging
from app.server.worker_slot import WorkerSlot
from app.settings import Settings
from app.telemetry import Metrics
from cxr.graph import open_graph


def run_device_process(
    settings: Settings, worker_slot: WorkerSlot, graph_opener: GraphOpener = open_graph
) -> int:
    """Run graphs for the serving processes until they have ended. Return the exit status."""
    configure_logging(settings.log_level)
    return_large_blocks_at_once()
    return uvloop.run(_run(settings, worker_slot, graph_opener))


async def _run(settings: Settings, worker_slot: WorkerSlot, graph_opener: GraphOpener) -> int:
    metrics = Metrics()
    metrics.replaced_device_processes.inc(worker_slot.replaces)
    versions = OpenVersions(
        settings, metrics, make_tuner(settings, graph_opener, cores=usable_cores())
    )
    service = DeviceService(versions, worker_slot.listener)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end)
    beating = asyncio.create_task(worker_slot.send_heartbeats(lambda: True), name="heartbeats")
    try:
        return await service.run()
    finally:
        beating.cancel()
