"""What `make bench` says of its goals."""

import math

from bench.goals import Goal, best_peer, check_goals
from bench.report import Results, write_report

SERVERS = {
    "ours": {
        "c16_per_s": 230.0,
        "c16_cpu_ms": 9.0,
        "c1_p50_ms": 8.0,
        "x3_good_share": 0.7,
        "memory_mb": 300.0,
    },
    "litserve_onnx": {"c16_per_s": 100.0},
    "mosec_onnx": {"c16_per_s": 190.0},
    "fastapi_careful": {"c16_per_s": 200.0},
}
BARE = {"per_s": 250.0, "cpu_ms": 8.0, "single_ms": 7.5, "read_ms": 2.0, "run_ms": 5.5}


def verdicts() -> dict[str, str]:
    return {goal.title: goal.verdict for goal in check_goals(SERVERS, BARE, {})}


def test_a_goal_is_met_on_its_own_side_of_the_limit() -> None:
    assert [Goal("most", value, 2.0).verdict for value in (2.0, 2.1)] == ["met", "**not met**"]
    assert [Goal("least", value, 2.0, is_least=True).verdict for value in (2.0, 1.9)] == [
        "met",
        "**not met**",
    ]


def test_what_was_not_measured_is_never_met() -> None:
    assert Goal("nothing", math.nan, 1.0).verdict == "unmeasured"
    assert verdicts()["throughput `fast` / best peer"] == "unmeasured"


def test_we_are_compared_with_the_peer_that_answers_most() -> None:
    assert best_peer(SERVERS) == "mosec_onnx"
    ratio = next(
        goal
        for goal in check_goals(SERVERS, BARE, {})
        if goal.title == "throughput / best peer with our reading"
    )
    assert ratio.value == 230 / 190


def test_figures_of_a_run_decide_each_goal() -> None:
    found = verdicts()
    assert found["throughput / careful FastAPI"] == "met"
    assert found["throughput / bare loop with our reading"] == "**not met**"
    assert found["goodput within 500 ms at 3x / own capacity"] == "**not met**"
    assert found["server CPU per request / bare loop"] == "**not met**"


def test_the_page_names_every_server_every_goal_and_every_gap() -> None:
    titles = {
        "ours": "ours",
        "litserve_onnx": "LitServe",
        "mosec_onnx": "mosec",
        "fastapi_careful": "FastAPI, careful",
        "ray_onnx": "Ray Serve",
    }
    results = Results(
        titles=titles, servers=SERVERS, bare=BARE, failures={"ray_onnx": "it did not start"}
    )
    page = write_report(results, ["goodput.svg"])
    assert "Ray Serve has gaps: it did not start" in page
    assert "The best peer by throughput at 16 connections was mosec." in page
    assert all(goal.title in page for goal in check_goals(SERVERS, BARE, {}))
    assert "nan" not in page
