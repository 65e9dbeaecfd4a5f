"""Wait for what another thread or process does."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], *, seconds: float = 300.0) -> None:
    """Wait for an event, however busy the machine is; fail after some minutes without it."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)
