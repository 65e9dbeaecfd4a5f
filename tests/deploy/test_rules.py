"""Alerts and dashboard, held to stories by promtool and to the metrics that the service has."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.telemetry import Metrics
from gateway.metrics import GatewayMetrics
from tests.conftest import ROOT

PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/dashboards/cxr-serve.json"
METRIC = re.compile(r"\bcxr_[a-z_]+")
ALERT = re.compile(r"alert: (\w+)")
RECORDED = re.compile(r"\bcxr:[a-z_]+:\w+")


def promtool(*arguments: str | Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on this machine")
    done = subprocess.run(
        ["promtool", *map(str, arguments)], check=False, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def read(folder: str) -> str:
    return "\n".join(path.read_text() for path in sorted((PROMETHEUS / folder).glob("*.yml")))


def test_rules_and_configuration_are_valid() -> None:
    promtool("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize(
    "story", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem
)
def test_alerts_fire_when_they_should_and_stay_silent_when_not(story: Path) -> None:
    promtool("test", "rules", story)


def test_every_alert_has_a_story_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    stories = read("tests")
    for alert in ALERT.findall(read("rules")):
        told = re.findall(
            rf"alertname: {alert}\b,?\s*(?:exp_alerts: (\[\])|exp_alerts:\n)", stories
        )
        assert "" in told, f"no story in which {alert} fires"
        assert "[]" in told, f"no story in which {alert} stays silent"


def test_every_metric_that_rules_and_dashboard_name_exists() -> None:
    exposed = {
        sample
        for registry in (Metrics().registry, GatewayMetrics().registry)
        for metric in registry.collect()
        for sample in sample_names(metric.name, metric.type)
    }
    named = set(METRIC.findall(read("rules") + DASHBOARD.read_text()))
    assert named <= exposed
    assert len(named) > 8


def test_every_recorded_series_that_the_dashboard_names_is_recorded() -> None:
    recorded = set(re.findall(r"record: (\S+)", read("rules")))
    assert set(RECORDED.findall(read("rules") + DASHBOARD.read_text())) == recorded


def test_every_alert_is_explained() -> None:
    text = (ROOT / "docs/deploy.md").read_text() + (ROOT / "docs/pacs.md").read_text()
    assert [alert for alert in ALERT.findall(read("rules")) if f"`{alert}`" not in text] == []


def test_no_panel_overlaps_another() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))


def sample_names(name: str, kind: str) -> list[str]:
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}.get(kind, ("",))
    return [name + suffix for suffix in suffixes]
