"""The steps of one answer as spans, for those who export them.

Each step is placed by its end, which is now, and by how long it took. What the event loop needs to
take up a result counts as waiting, as in an answer's `timings_ms`.
"""

import time

from app.inference.decoders import Prepared
from app.inference.pending_request import InferenceResult
from app.telemetry import record_span


def record_preparation(prepared: Prepared, *, since: float, inline: InferenceResult | None) -> None:
    """Record a preparation that ended now, and its run if that followed in the same thread.

    Args:
        prepared: what the preparation gave.
        since: when it was asked for, on `time.perf_counter`'s clock; it began later.
        inline: the run's result; None if the run is yet to come.
    """
    now = time.perf_counter()
    ran_from = now - (inline.run_s if inline else 0.0)
    ready = ran_from - (inline.queue_s if inline else 0.0)
    decoded = ready - prepared.preprocess_s
    decode_began = decoded - prepared.decode_s
    record_span("queue", min(since, decode_began), decode_began)
    record_span("decode", decode_began, decoded)
    record_span("preprocess", decoded, ready)
    if inline is not None:
        record_span("run", ran_from, now)


def record_queued_run(result: InferenceResult) -> None:
    """Record a run that ended now, and its wait in the queue before."""
    now = time.perf_counter()
    ran_from = now - result.run_s
    record_span("queue", ran_from - result.queue_s, ran_from)
    record_span("run", ran_from, now)
