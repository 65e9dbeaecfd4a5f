"""Named places at which a test kills the process, as a power cut would.

A place is armed by the environment: `GATEWAY_FAILPOINT=send.answered:3` kills the process with
SIGKILL when it passes `send.answered` for the third time. Only tests set the variable.
docs/pacs.md lists the places with what is lost and what is done again at each.
"""

import functools
import os
import signal
import threading

VARIABLE = "GATEWAY_FAILPOINT"

COMMITS = (
    "received", "conflict", "skipped", "scored", "postponed", "intent", "sent", "confirmed",
    "released",
)  # fmt: skip
"""Changes of the table; each has a place before and one after its commit."""

POINTS = (
    "receive.before_file",
    "receive.file_created",
    "receive.half_written",
    "receive.written",
    "receive.file_synced",
    "receive.folder_synced",
    "receive.durable",
    "receive.responded",
    "score.claimed",
    "score.read",
    "score.before_request",
    "score.answered",
    "score.parsed",
    "send.claimed",
    "send.before_request",
    "send.half_sent",
    "send.request_sent",
    "send.answered",
    "confirm.before_query",
    "confirm.answered",
    "retain.before_delete",
    "retain.deleted",
    *(f"{place}_commit.{change}" for change in COMMITS for place in ("before", "after")),
)
"""Every place that can be armed."""


class _Countdown:
    """The armed place, and how many more passes it lets by."""

    def __init__(self, place: str, passes: int) -> None:
        self._place, self._left = place, passes
        self._lock = threading.Lock()

    def passed(self, place: str) -> None:
        """Kill the process if this is the armed pass of the armed place."""
        if place != self._place:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


@functools.cache
def _armed() -> _Countdown | None:
    place, _, passes = os.environ.get(VARIABLE, "").partition(":")
    return _Countdown(place, int(passes or 1)) if place else None


def failpoint(place: str) -> None:
    """Mark a place at which a test may kill the process."""
    countdown = _armed()
    if countdown is not None:
        countdown.passed(place)
