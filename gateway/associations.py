"""Associations that wait for events, where pynetdicom polls a thousand times a second.

pynetdicom serves an association with two threads. One reads and writes the connection, the other
answers messages. Both sleep for a millisecond and look again, so that 25 idle associations take a
whole core. Here the first waits for its socket, or for a primitive to send. The second waits for
a message. Data is read in large pieces: each read lets the other threads take the interpreter.
"""

import queue
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, ThreadedAssociationServer

_LOOK_AGAIN_S = 0.1
"""Timers of pynetdicom are looked at this often, whatever happens."""

_LOOP_DELAY_S = 0.0001
_READ_BYTES = 256 * 1024
_LINGER_S = 2.0
_BACKLOG = 128
_WAITING_FOR_CLOSE = "Sta13"
"""State of the upper layer after an abort or a rejection (PS3.8 9.2.1)."""


_ABORT = bytes.fromhex("07000000000400000200")
"""A-ABORT by the service provider, no reason stated (PS3.8 9.3.8)."""


class SharedContexts(list[PresentationContext]):
    """What a node supports: the same list for all associations, which only read it.

    pynetdicom would copy some hundred contexts for each association.
    """

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self


class Listener(ThreadedAssociationServer):
    """A server whose thread can be looked after; pynetdicom starts one that nobody can see."""

    def start(self) -> None:
        """Accept associations in a thread."""
        if self.socket is not None:
            self.socket.listen(_BACKLOG)
        self.ae._servers.append(self)  # noqa: SLF001 - `shutdown` takes it from there
        self._thread = threading.Thread(target=self.serve_forever, name="listener", daemon=True)
        self._thread.start()

    @property
    def is_sound(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()


def listen(
    entity: AE,
    address: tuple[str, int],
    context: ssl.SSLContext | None,
    handlers: list[evt.EventHandlerType],
) -> Listener:
    """Serve associations in threads of their own; raises `OSError` if the port is taken."""
    _config.LOG_HANDLER_LEVEL = "none"  # else each message is described, for nobody
    server = entity.make_server(
        address,
        ssl_context=context,
        contexts=SharedContexts(entity.supported_contexts),
        evt_handlers=handlers,
        server_class=Listener,
    )
    assert isinstance(server, Listener)
    server.start()
    return server


def wait_for_events(
    association: Association,
    *,
    silence_s: float,
    max_bytes: int,
    on_too_large: Callable[[], None],
) -> None:
    """Let a new association wait for events; to be called when its connection is opened.

    Args:
        association: has no thread yet.
        silence_s: a sender that stops in the middle of a PDU is waited for no longer than this.
        max_bytes: a PDU that announces more ends the association.
        on_too_large: is told of such a PDU.
    """
    opened = association.dul.socket
    assert opened is not None
    assert opened.socket is not None
    opened.socket.settimeout(silence_s)
    gate = _Gate()
    waker = _Waker()
    dul = association.dul
    dul._run_loop_delay = _LOOP_DELAY_S  # noqa: SLF001
    dul.event_queue = _WakingQueue(waker.wake)
    dul.to_provider_queue = _WakingQueue(waker.wake)
    dul.to_user_queue = _WakingQueue(gate.set)
    association.dimse.msg_queue = _WakingQueue(gate.set)
    association._reactor_checkpoint = gate  # noqa: SLF001
    dul.socket = _WaitingSocket(association, opened.socket, waker)
    dul.socket.max_bytes = max_bytes
    dul.socket.on_too_large = on_too_large
    gate.set()


def only_ask(association: Association) -> Association:
    """Keep an association's reactor from taking an answer that its caller waits for.

    pynetdicom pauses the reactor during a request, yet the reactor may be on its way to take a
    message at that moment. The caller would then wait until its time is over.

    Returns:
        The same association, which serves no request of its peer from now on.
    """
    association._reactor_checkpoint = _Rest(association)  # noqa: SLF001
    return association


class _Rest(threading.Event):
    """Opens for the reactor of an association that is over, and for no other reason."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self.set()

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - the reactor gives none
        while not self._association._kill and not (self.is_set() and self._is_over()):  # noqa: SLF001
            time.sleep(_LOOK_AGAIN_S)
        return True

    def _is_over(self) -> bool:
        dul = self._association.dul
        return dul.peek_next_pdu() is not None or not dul.is_alive()


class _Gate(threading.Event):
    """Opens for one round of the reactor if it is set, and now and then by itself."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - the reactor gives none
        is_set = super().wait(_LOOK_AGAIN_S)
        self.clear()
        return is_set


class _Waker:
    """Ends another thread's `select`."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self.close = weakref.finalize(self, _close, self.reader, self._writer)

    def wake(self) -> None:
        """Make the reader readable; nothing happens if that is so, or if it is closed."""
        with suppress(OSError):
            self._writer.send(b"\0")

    def calm(self) -> None:
        """Take what made the reader readable."""
        with suppress(OSError):
            self.reader.recv(_READ_BYTES)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


class _WakingQueue(queue.Queue[Any]):
    """A queue that tells somebody of each thing that is put into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002
        super().put(item, block, timeout)
        self._wake()


class _WaitingSocket(AssociationSocket):
    """A connection whose thread sleeps until there is something to do."""

    max_bytes: int
    on_too_large: Callable[[], None]

    def __init__(self, association: Association, opened: socket.socket, waker: _Waker) -> None:
        super().__init__(association, client_socket=opened)
        self._waker = waker

    @property
    def ready(self) -> bool:
        """Wait until there is data, or something to send; tell whether there is data."""
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        try:
            found, _, _ = select.select([connection, self._waker.reader], [], [], self._wait_s())
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # the connection is closed
            return False
        if self._waker.reader in found:
            self._waker.calm()
        return connection in found

    def _wait_s(self) -> float:
        dul = self.assoc.dul
        is_busy = dul.event_queue.qsize() or dul.to_provider_queue.qsize()
        if is_busy or dul.state_machine.current_state == _WAITING_FOR_CLOSE:
            return 0.0
        return _LOOK_AGAIN_S

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes; fewer if the peer has closed the connection."""
        assert self.socket is not None
        if nr_bytes > self.max_bytes:
            self._refuse()
            return bytearray()
        content = bytearray()
        piece = memoryview(bytearray(min(nr_bytes, _READ_BYTES)))
        while len(content) < nr_bytes:
            num_read = self.socket.recv_into(piece, min(nr_bytes - len(content), len(piece)))
            if not num_read:
                break
            content += piece[:num_read]
        return content

    def _refuse(self) -> None:
        """Abort, and read on for a moment: else the peer may lose the abort with the rest."""
        assert self.socket is not None
        self.on_too_large()
        until = time.monotonic() + _LINGER_S
        piece = bytearray(_READ_BYTES)
        with suppress(OSError):
            self.socket.settimeout(_LINGER_S)
            self.socket.sendall(_ABORT)
            self.socket.shutdown(socket.SHUT_WR)
            while time.monotonic() < until and self.socket.recv_into(piece):
                pass

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._waker.close()
