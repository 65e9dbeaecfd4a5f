"""Attempts at a source that may be busy."""

import time
from collections.abc import Callable
from typing import TypeVar

from bulk.errors import BulkError, SourceUnreadable

T = TypeVar("T")

ATTEMPTS = 4
FIRST_PAUSE_S = 0.5


def attempt(
    read: Callable[[], T],
    *,
    is_final: Callable[[Exception], bool],
    first_pause_s: float = FIRST_PAUSE_S,
) -> T:
    """Read, and read again after a pause that doubles; raises `SourceUnreadable`.

    Args:
        read: raises whatever its library raises.
        is_final: whether a further attempt is useless, as it is if the file is gone.
        first_pause_s: before the second attempt.
    """
    pauses_s = [first_pause_s * 2**number for number in range(ATTEMPTS - 1)]
    for pause_s in (*pauses_s, None):
        try:
            return read()
        except BulkError:
            raise
        except Exception as exc:  # each store's library raises errors of its own
            if pause_s is None or is_final(exc):
                raise SourceUnreadable(type(exc).__name__) from exc
        time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")
