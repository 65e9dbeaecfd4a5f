"""Attempts at a source that may be busy."""

import time
from collections.abc import Callable
from typing import TypeVar

from bulk.errors import BulkError, SourceUnreadable

T = TypeVar("T")

ATTEMPTS = 4
FIRST_PAUSE_S = 0.5
_MAX_LOST = 3
"""Reads lost one after the other, after which a source counts as away."""


class Attempts:
    """Reads again after pauses that double, but once only while the source is away.

    So a server that has died costs each of its files one attempt and no pause, until it answers.
    """

    def __init__(
        self, is_final: Callable[[Exception], bool], first_pause_s: float = FIRST_PAUSE_S
    ) -> None:
        """Take what tells that a further attempt is useless, as it is if the file is gone."""
        self._is_final = is_final
        self._pauses_s = [first_pause_s * 2**number for number in range(ATTEMPTS - 1)]
        self._num_lost = 0

    def __call__(self, read: Callable[[], T]) -> T:
        """Return what `read` does, which raises whatever its library raises.

        Raises:
            SourceUnreadable: no attempt succeeded.
            BulkError: from `read`; nothing but a person can mend it.
        """
        pauses_s = self._pauses_s if self._num_lost < _MAX_LOST else []
        for pause_s in (*pauses_s, None):
            try:
                result = read()
            except BulkError:
                raise
            except Exception as exc:  # each store's library raises errors of its own
                if self._is_final(exc):
                    raise SourceUnreadable(type(exc).__name__) from exc
                if pause_s is None:
                    self._num_lost += 1
                    raise SourceUnreadable(type(exc).__name__) from exc
            else:
                self._num_lost = 0
                return result
            time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")
