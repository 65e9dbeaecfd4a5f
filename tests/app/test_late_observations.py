"""Observations wait for each other, and nobody who reads metrics misses one."""

from prometheus_client import CollectorRegistry, Histogram

from app.telemetry import Metrics
from app.telemetry.late_observations import LateObservations


def test_what_waits_is_observed_when_the_metrics_are_read() -> None:
    metrics = Metrics()
    metrics.observe_stage("decode", 0.02)
    metrics.observe_request("/predict", 200, 0.03)
    metrics.observe_batch(2)
    metrics.observe_answer("pneumonia", 4, "normal", 0.1)
    text = metrics.render("text/plain")[0].decode()

    for line in (
        'cxr_stage_duration_seconds_sum{stage="decode"} 0.02',
        'cxr_request_duration_seconds_sum{route="/predict",status="200"} 0.03',
        "cxr_batch_size_sum 2.0",
        'cxr_predictions_total{label="normal",model="pneumonia",version="4"} 1.0',
        'cxr_probability_sum{model="pneumonia"} 0.1',
    ):
        assert line in text.splitlines()


def test_a_registry_that_is_asked_itself_makes_them_first() -> None:
    metrics = Metrics()
    metrics.observe_batch(3)

    assert metrics.registry.get_sample_value("cxr_batch_size_sum") == 3


def test_observations_that_nobody_reads_are_made_before_many_wait() -> None:
    late = LateObservations(64)
    histogram = Histogram("made", "Observations.", registry=(registry := CollectorRegistry()))
    for _ in range(100):
        late.add(histogram.observe, 1.0)

    assert registry.get_sample_value("made_count") == 64
