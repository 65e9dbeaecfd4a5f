"""What an autoscaler follows: backlog, capacity, and how many worker processes can answer.

Each worker process reports its own state a few times a second, so that a scrape of any of them
finds all of them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.inference.classifier import Classifier
from app.telemetry import Metrics

_INTERVAL_S = 0.5


@asynccontextmanager
async def reporting(
    classifier: Classifier, metrics: Metrics, num_workers: int
) -> AsyncIterator[None]:
    """Report the load while the block runs."""
    metrics.workers_configured.set(num_workers)
    task = asyncio.create_task(_report_often(classifier, metrics), name="load-report")
    try:
        yield
    finally:
        task.cancel()


def report(classifier: Classifier, metrics: Metrics) -> None:
    """Report this process's load now."""
    metrics.backlog.set(max(0.0, classifier.admission.backlog_s))
    metrics.capacity.set(classifier.admission.capacity_per_second)
    is_ready = not classifier.unready_reasons()
    metrics.workers.labels("ready").set(is_ready)
    metrics.workers.labels("not_ready").set(not is_ready)


async def _report_often(classifier: Classifier, metrics: Metrics) -> None:
    while True:
        report(classifier, metrics)
        await asyncio.sleep(_INTERVAL_S)
