"""End a process at once, without waiting for its threads."""

import logging
import os
import sys
from typing import NoReturn


def end_process(status: int) -> NoReturn:
    """End the process now, after the log was written as far as somebody reads it.

    The interpreter itself would wait for all threads. One that opens a bundle, reads a store or
    writes to a full pipe may wait for ever.
    """
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)
