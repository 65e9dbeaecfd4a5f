"""Let idle associations sleep.

pynetdicom polls each open association a thousand times a second in two threads, so that 25 idle
ones take a whole core from those that work. An association that has been silent for a second is
polled 20 times a second here, and its reactor waits for its next PDU.
"""

import threading
import time
from contextlib import suppress

from pynetdicom.association import Association
from pynetdicom.events import Event

_BUSY_DELAY_S = 0.001
_IDLE_DELAY_S = 0.05
_IDLE_AFTER_S = 1.0
_LOOK_EVERY_S = 0.5


class Pacing:
    """Watches the associations of one server; start it, and stop it at the end."""

    def __init__(self, idle_seconds: float) -> None:
        """Abort associations that are silent for longer than `idle_seconds`."""
        self._idle_seconds = idle_seconds
        self._heard_at: dict[Association, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pacing", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()

    @property
    def open_count(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._heard_at)

    def on_connected(self, event: Event) -> None:
        """Bound the silence of a new connection, which has asked for nothing yet."""
        association = event.assoc
        association.dul._run_loop_delay = _IDLE_DELAY_S / 5  # noqa: SLF001
        transport = association.dul.socket
        if transport is not None and transport.socket is not None:
            # A sender that stops in the middle of a PDU is waited for no longer than this.
            transport.socket.settimeout(self._idle_seconds)
        with self._lock:
            self._heard_at[association] = time.monotonic()

    def on_heard(self, event: Event) -> None:
        """Wake an association whose peer has sent something."""
        with self._lock:
            self._heard_at[event.assoc] = time.monotonic()
        _wake(event.assoc)

    def on_closed(self, event: Event) -> None:
        """Let a closed association end."""
        with self._lock:
            self._heard_at.pop(event.assoc, None)
        _wake(event.assoc)

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            with self._lock:
                heard_at = dict(self._heard_at)
            for association, at in heard_at.items():
                self._pace(association, now - at)

    def _pace(self, association: Association, silent_s: float) -> None:
        if not association.is_alive():
            with self._lock:
                self._heard_at.pop(association, None)
        elif silent_s > self._idle_seconds and association.is_established:
            _wake(association)
            with suppress(Exception):  # it may close by itself at this moment
                association.abort(block=False)
        elif silent_s < _IDLE_AFTER_S or not association.is_established:
            if association.is_established:
                _wake(association)
        else:
            association.dul._run_loop_delay = _IDLE_DELAY_S  # noqa: SLF001
            association._reactor_checkpoint.clear()  # noqa: SLF001


def _wake(association: Association) -> None:
    association.dul._run_loop_delay = _BUSY_DELAY_S  # noqa: SLF001
    association._reactor_checkpoint.set()  # noqa: SLF001
