import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr.preprocess import PreprocessSpec
from training.data import load_index
from training.evaluation.labelled_images import read_images


@pytest.fixture
def one_core() -> Iterator[None]:
    """Let this process use one core, as a container may."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.usefixtures("one_core")
def test_a_process_that_may_use_one_core_decodes_in_one_thread(films_dir: Path) -> None:
    rows = load_index(films_dir, purpose="test").rows
    before = set(threading.enumerate())
    images = read_images(rows, films_dir, PreprocessSpec(size=64), [])

    next(images)
    decoding = set(threading.enumerate()) - before

    assert len(list(images)) == len(rows) - 1
    assert len(decoding) == 1
