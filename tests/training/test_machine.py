import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource
from pathlib import Path
from training.machine import settle
{settle}
import numpy as np
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(8_000_000)
before = faults()
for _ in range(4):
    np.ones(8_000_000)
print(faults() - before)
"""


def page_faults(settle: str) -> int:
    """Count the pages that the kernel hands out for four large arrays, one after the other."""
    command = [sys.executable, "-c", SCRIPT.format(settle=settle)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they like")
def test_memory_that_was_freed_is_used_again_without_asking_the_kernel() -> None:
    assert page_faults("settle()") < 100 < page_faults("") / 4
