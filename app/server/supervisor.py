"""Start several worker processes on one port, and replace those that die or hang.

    parent    binds the port, starts the workers, replaces those that die or hang
    worker    a whole service on the same listening socket; sends heartbeats while it is sound
    device    if the settings say so, the one process that runs the graphs of all workers;
              it is replaced in the same way, and ends after the last worker

All workers share one inherited socket. With SO_REUSEPORT each worker would have a queue of its own,
and connections in the queue of a worker that hangs or dies would be lost. From a shared queue the
others accept them.

uvicorn's own supervisor does not fit. Its workers answer pings from a thread, so a stuck event loop
looks sound, and a dead worker is started again at once and for ever.
"""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from app.server.bind_socket import bind
from app.server.private_folder import device_listener, private_folder
from app.server.worker_slot import FAULTY, WorkerSlot, run_graphs
from app.settings import Settings

logger = logging.getLogger("cxr.supervisor")

_TICK_SECONDS = 0.2

_DEVICE_ENDS_S = 5.0
"""Seconds that the device process has to end when no worker is left."""

_FREEZE_SECONDS = 1.0
"""A tick that comes so late shows that this process was stopped for a while."""


@dataclass(frozen=True, slots=True)
class SupervisionLimits:
    """Times after which a parent replaces a worker."""

    start_s: float = 120.0
    """From start to first heartbeat: imports take long on a busy machine."""
    silence_s: float = 10.0
    """Between two heartbeats; a sound event loop sends one every second."""
    slow_s: float = 3.0
    """Between two heartbeats before a warning is logged."""
    short_life_s: float = 60.0
    """A worker that ends sooner counts as a failure of its slot."""
    backoff_s: float = 1.0
    """Before the second start of a slot; doubled with each failure."""
    max_failures: int = 5
    """Failures in a row, of one slot, after which the service gives up."""


@dataclass(slots=True)
class _Slot:
    """One slot: its current process, if any, and its history."""

    number: int
    is_device: bool = False
    process: SpawnProcess | None = None
    heartbeat: Connection | None = None
    started: float = 0.0
    last_heartbeat: float | None = None
    failures: int = 0
    starts: int = 0
    due: float = 0.0
    """When to start the next process."""
    ends_by: float = field(default=float("inf"))
    """When a process that was told to go is killed."""


class Supervisor:
    """The parent of all workers; runs in the main thread, which gets the signals."""

    def __init__(
        self,
        settings: Settings,
        work: Callable[[Settings, WorkerSlot], None],
        limits: SupervisionLimits | None = None,
        *,
        run_graphs: Callable[[Settings, WorkerSlot], None] = run_graphs,
    ) -> None:
        """Take the settings, the targets of workers and of the device process, and limits."""
        self._settings = settings
        self._work = work
        self._run_graphs = run_graphs
        self._limits = limits or SupervisionLimits()
        self._context = multiprocessing.get_context(
            "spawn"
        )  # a worker starts from nothing, as a single service does
        self._workers = [_Slot(number) for number in range(settings.workers)]
        self._device = _Slot(settings.workers, is_device=True)
        self._slots = [*([self._device] if settings.has_device_process else []), *self._workers]
        self._device_address: Path | None = None
        self._signals: deque[int] = deque()
        """Signals that wait to be handled, so never in the middle of a worker's start."""
        self._is_ending = False
        self._status = 0
        self._last_tick = time.monotonic()
        self._kill_after_s = (
            settings.default_timeout_seconds + 5.0
        )  # an answer's time, and some to close

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or a crash loop. Return the exit status."""
        with (
            private_folder() as folder,
            bind(self._settings.host, self._settings.port) as listener,
            device_listener(folder, is_wanted=self._settings.has_device_process) as device,
            self._catching_signals(),
        ):
            self._device_address = device.address if device else None
            logger.info(
                "listening",
                extra={"port": listener.getsockname()[1], "workers": len(self._workers)},
            )
            while not self._is_ending or any(slot.process for slot in self._slots):
                self._notice_freeze(time.monotonic())
                while self._signals:
                    self._end(self._signals.popleft())
                if self._is_ending:
                    # else connections would wait that no worker answers
                    listener.close()
                for slot in self._slots:
                    own = device.listener if device and slot.is_device else listener
                    self._supervise(slot, own, folder)
                heartbeats: dict[object, _Slot] = {
                    slot.heartbeat: slot for slot in self._slots if slot.heartbeat
                }
                for heartbeat in wait(
                    [slot.heartbeat for slot in heartbeats.values() if slot.heartbeat],
                    _TICK_SECONDS,
                ):
                    self._read_heartbeat(heartbeats[heartbeat])
        return self._status

    def _notice_freeze(self, now: float) -> None:
        """Count all silences from now if this process itself stood still.

        The workers stood still too if the container or the machine was paused.
        """
        late_s = now - self._last_tick
        self._last_tick = now
        if late_s < _FREEZE_SECONDS:
            return
        logger.warning("the parent process stood still", extra={"seconds": round(late_s, 1)})
        for slot in self._slots:
            slot.ends_by += late_s
            if slot.last_heartbeat is None:
                slot.started = now
            else:
                slot.last_heartbeat = now

    def _supervise(self, slot: _Slot, listener: socket.socket, folder: Path) -> None:
        """Start a slot's worker, or replace one that died, hangs, or did not end in time."""
        now, limits = time.monotonic(), self._limits
        if slot.process is None:
            if not self._is_ending and now >= slot.due:
                self._start(slot, listener)
            return
        if not slot.process.is_alive():
            self._reap(slot, folder)
        elif slot.is_device and self._is_unused_device(slot):
            self._signal_worker(slot, signal.SIGTERM, within_s=_DEVICE_ENDS_S)
        elif now > slot.ends_by or self._silence(slot, now) > (
            limits.silence_s if slot.last_heartbeat else limits.start_s
        ):
            logger.error(
                "a worker hangs and is killed",
                extra={"worker": slot.number, "pid": slot.process.pid},
            )
            slot.process.kill()
            slot.process.join()
            self._reap(slot, folder)

    def _is_unused_device(self, device: _Slot) -> bool:
        """Tell whether the device process is to end now, and was not told so."""
        is_used = any(worker.process for worker in self._workers)
        return self._is_ending and not is_used and device.ends_by == float("inf")

    def _start(self, slot: _Slot, listener: socket.socket) -> None:
        slot.heartbeat, far_end = self._context.Pipe(duplex=False)
        worker_slot = WorkerSlot(
            slot.number,
            listener,
            far_end,
            replaces=slot.starts > 0,
            device_address=self._device_address,
        )
        target = self._run_graphs if slot.is_device else self._work
        settings = self._settings if slot.is_device else self._settings.share()
        slot.process = self._context.Process(target=target, args=(settings, worker_slot))
        slot.process.start()
        far_end.close()
        slot.started, slot.last_heartbeat, slot.ends_by = time.monotonic(), None, float("inf")
        slot.starts += 1
        logger.info(
            "device process started" if slot.is_device else "worker started",
            extra={"worker": slot.number, "pid": slot.process.pid},
        )

    def _read_heartbeat(self, slot: _Slot) -> None:
        """Read a worker's heartbeats; tell a faulty worker to finish and end."""
        assert slot.heartbeat is not None
        assert slot.process is not None
        received = os.read(slot.heartbeat.fileno(), 4096)
        if not received:  # the worker has closed its end
            slot.heartbeat.close()
            slot.heartbeat = None
            return
        now = time.monotonic()
        if slot.last_heartbeat and now - slot.last_heartbeat > self._limits.slow_s:
            logger.warning(
                "a worker is slow",
                extra={"worker": slot.number, "silent_s": round(now - slot.last_heartbeat, 1)},
            )
        slot.last_heartbeat = now
        if FAULTY in received and slot.ends_by == float("inf"):
            logger.error(
                "a part of a worker has died; it is replaced", extra={"worker": slot.number}
            )
            self._signal_worker(slot, signal.SIGINT, within_s=self._kill_after_s)

    def _silence(self, slot: _Slot, now: float) -> float:
        return now - (slot.last_heartbeat or slot.started)

    def _reap(self, slot: _Slot, folder: Path) -> None:
        """Clean up after a dead worker, and set the time of the next start."""
        assert slot.process is not None
        lived_s, status = time.monotonic() - slot.started, slot.process.exitcode
        slot.process.close()
        slot.process = None
        if slot.heartbeat:
            slot.heartbeat.close()
            slot.heartbeat = None
        mark_process_dead(slot.number, str(folder))  # type: ignore[no-untyped-call]
        if self._is_ending:
            return
        slot.failures = slot.failures + 1 if lived_s < self._limits.short_life_s else 0
        pause_s = self._limits.backoff_s * 2 ** (slot.failures - 1) if slot.failures else 0.0
        slot.due = time.monotonic() + pause_s
        logger.error(
            "a worker has ended",
            extra={"worker": slot.number, "status": status, "next_in_s": pause_s},
        )
        if slot.failures >= self._limits.max_failures:
            logger.critical(
                "workers end again and again: giving up, so that the service is started anew"
            )
            self._status = 1
            self._end(signal.SIGTERM)

    def _end(self, sig: int) -> None:
        """Tell all workers to drain, or on SIGINT to finish at once; later kill the others."""
        self._is_ending = True
        drain_s = self._settings.drain_seconds if sig == signal.SIGTERM else 0.0
        for slot in self._workers:
            self._signal_worker(slot, sig, within_s=drain_s + self._kill_after_s)

    def _signal_worker(self, slot: _Slot, sig: int, *, within_s: float) -> None:
        if slot.process is not None and slot.process.is_alive():
            slot.ends_by = time.monotonic() + within_s
            with suppress(ProcessLookupError):
                os.kill(slot.process.pid or 0, sig)

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        def on_signal(sig: int, _frame: FrameType | None) -> None:
            self._signals.append(sig if sig == signal.SIGINT else signal.SIGTERM)

        before = {sig: signal.signal(sig, on_signal) for sig in _signals()}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _signals() -> list[signal.Signals]:
    """Return the signals that end the service; SIGHUP only if it was not ignored, as by nohup."""
    ends = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        ends.append(signal.SIGHUP)
    return ends
