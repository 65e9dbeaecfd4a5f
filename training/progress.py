"""One way to show progress: a live bar on a terminal, a line now and then in a log."""

import sys
from typing import Any

from tqdm import tqdm

_LOG_INTERVAL_S = 20.0


def progress_bar(**options: Any) -> "tqdm[Any]":
    """Make a tqdm bar with rate and ETA."""
    interval = 0.2 if sys.stderr.isatty() else _LOG_INTERVAL_S
    return tqdm(
        mininterval=interval, maxinterval=max(10.0, interval), dynamic_ncols=True, **options
    )
