import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cxr.interpret import Calibration, DecisionProfile, Outputs
from training.bundle.precision_cost import Cost, calibration_positions, cost_gates, measure_cost
from training.hardware import bf16_instructions

READING = DecisionProfile(
    calibration=Calibration(slope=1.0, intercept=0.0), thresholds={"balanced": 0.5, "screen": 0.2}
)
LABEL_N = np.tile([0, 1], 100)
FREE = Cost(
    images=200, auroc_change=0.0, flips=0.0, max_probability_change=0.0, cam_correlation=1.0
)


def answers(logit_N: NDArray[np.float64], cam_Nhw: NDArray[np.float32] | None = None) -> Outputs:
    if cam_Nhw is None:
        cam_Nhw = np.tile(np.arange(4, dtype=np.float32).reshape(2, 2), (len(logit_N), 1, 1))
    return Outputs(logit_N.astype(np.float32), cam_Nhw, np.ones(len(logit_N), dtype=np.float32))


def refused(name: str, cost: Cost) -> list[str]:
    return [gate.name for gate in cost_gates(name, cost) if not gate.holds]


def test_the_same_answers_cost_nothing_and_pass_every_gate() -> None:
    exact = answers(np.random.default_rng(0).normal(size=200))
    cost = measure_cost(LABEL_N, exact, exact, READING)
    assert dataclasses.asdict(cost) == pytest.approx(dataclasses.asdict(FREE))
    assert [refused(name, cost) for name in ("fp16", "int8", "bf16")] == [[], [], []]


@pytest.mark.parametrize(
    ("name", "change", "gate"),
    [
        ("int8", {"auroc_change": -0.0031}, "int8 AUROC against fp32"),
        ("fp16", {"auroc_change": 0.0031}, "fp16 AUROC against fp32"),
        ("bf16", {"auroc_change": None}, "bf16 AUROC against fp32"),
        ("bf16", {"flips": 0.0101}, "bf16 changed labels"),
        ("fp16", {"max_probability_change": 0.0101}, "fp16 probability against fp32"),
        ("int8", {"cam_correlation": 0.949}, "int8 map's correlation with fp32's"),
        ("int8", {"cam_correlation": float("nan")}, "int8 map's correlation with fp32's"),
    ],
)
def test_each_gate_refuses_what_costs_too_much(
    name: str, change: dict[str, Any], gate: str
) -> None:
    assert refused(name, dataclasses.replace(FREE, **change)) == [gate]


def test_labels_are_compared_at_the_operating_point_where_most_of_them_change() -> None:
    exact_N = np.linspace(-3, 3, 200)
    at_screen = (
        np.abs(exact_N - np.log(0.2 / 0.8)) < 0.05
    )  # three logits about the cut at 0.2, none about 0
    moved_N = np.where(at_screen, np.log(0.2 / 0.8) - (exact_N - np.log(0.2 / 0.8)), exact_N)
    cost = measure_cost(LABEL_N, answers(exact_N), answers(moved_N), READING)
    assert cost.flips == at_screen.sum() / 200 > 0.01


def test_maps_are_compared_image_by_image_and_a_flat_one_agrees_with_nothing_else() -> None:
    rising_hw = np.arange(4, dtype=np.float32).reshape(2, 2)
    exact = answers(np.arange(4.0), np.stack([rising_hw, rising_hw, rising_hw, 0 * rising_hw]))
    other = answers(
        np.arange(4.0), np.stack([2 * rising_hw + 7, -rising_hw, 0 * rising_hw, 0 * rising_hw])
    )
    assert measure_cost(
        np.array([0, 1, 0, 1]), exact, other, READING
    ).cam_correlation == pytest.approx((1 - 1 + 0 + 1) / 4)


def test_images_to_calibrate_on_hold_the_classes_in_their_shares() -> None:
    label_N = np.repeat([0, 1], [900, 100])
    chosen = calibration_positions(label_N, 100)
    assert np.bincount(label_N[chosen]).tolist() == [90, 10]
    assert len(set(chosen.tolist())) == 100
    assert calibration_positions(label_N[:50], 100).tolist() == list(range(50))


@pytest.mark.parametrize(
    ("flags", "named"),
    [("fpu avx512_bf16 amx_bf16", "avx512_bf16 amx_bf16"), ("fpu avx512f avx512_vnni", None)],
)
def test_bf16_is_taken_for_native_only_where_the_processor_names_it(
    flags: str, named: str | None, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert bf16_instructions(cpuinfo) == named
    assert bf16_instructions(tmp_path / "no such file") is None
