"""Hand shared memory to the device process: the first message on a connection carries it."""

import os
import socket
import struct

from app.inference.device.shared_memory_slots import SharedSlots

_HELLO = struct.Struct("<8sI")
_MAGIC = b"cxrlink1"


def send_shared_memory(link: socket.socket, file: int, num_slots: int) -> None:
    """Hand the shared memory to the device process; raises `OSError`."""
    socket.send_fds(link, [_HELLO.pack(_MAGIC, num_slots)], [file])


def receive_shared_memory(link: socket.socket) -> SharedSlots:
    """Take the shared memory of a serving process; blocks for as long as the socket's time limit.

    Raises:
        OSError: nothing came in time, or the other end is gone.
        ValueError: what came is no such message.
    """
    data, files, _, _ = socket.recv_fds(link, _HELLO.size, 1)
    try:
        if len(data) != _HELLO.size or len(files) != 1:
            raise ValueError("a connection did not begin with its shared memory")
        magic, num_slots = _HELLO.unpack(data)
        if magic != _MAGIC:
            raise ValueError("a connection is of another version of the service")
        return SharedSlots.attach(files[0], num_slots)
    finally:
        for file in files:
            os.close(file)
