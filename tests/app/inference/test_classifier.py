import asyncio
import time

import pytest

from app.errors import DeadlineExceeded
from app.inference.classifier import by_deadline


@pytest.mark.anyio
async def test_work_is_stopped_at_its_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        async with by_deadline(time.monotonic() + 0.02):
            await asyncio.sleep(5)


@pytest.mark.anyio
async def test_work_whose_deadline_passed_never_begins() -> None:
    with pytest.raises(DeadlineExceeded):
        async with by_deadline(time.monotonic() - 1):
            raise AssertionError
