import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.models.execution_plan import Overrides
from app.models.run_times import Clocks
from app.models.tuning import Tuner
from cxr.bundle import Bundle, read_bundle
from cxr.graph import Graph, Runtime
from cxr.interpret import Outputs
from tests.app.fake_graph import FakeGraph
from tests.bundles import write_made_bundle

Factors = Mapping[int, float]
EVEN: Factors = {}


class Machine:
    """Opens graphs whose runs take what the test says, on clocks of its own, and remembers how they
    were opened.

    `effort` is how many times as long a run keeps the processor, by the run slots that it shares it
    with; `stolen` is how many times as long it takes because others have the cores."""

    def __init__(
        self, seconds: dict[int, float], *, effort: Factors = EVEN, stolen: Factors = EVEN
    ) -> None:
        self.seconds = seconds
        self.effort = effort
        self.stolen = stolen
        self.opened: list[Runtime] = []
        self.sizes: list[int] = []
        self.now = 0.0
        self.kept = 0.0

    def clock(self) -> float:
        return self.now

    def processor_clock(self) -> float:
        return self.kept

    def open(self, bundle: Bundle, runtime: Runtime) -> Graph:
        self.opened.append(runtime)
        return _TimedGraph(self, runtime.run_slots)


class _TimedGraph(FakeGraph):
    def __init__(self, machine: Machine, run_slots: int) -> None:
        super().__init__()
        self._machine = machine
        self._runners = run_slots

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        self._machine.sizes.append(len(batch_NHW))
        kept_s = self._machine.seconds[len(batch_NHW)] * self._machine.effort.get(
            self._runners, 1.0
        )
        self._machine.kept += kept_s
        self._machine.now += kept_s * self._machine.stolen.get(self._runners, 1.0)
        return super().run(batch_NHW, with_map=with_map)


LINEAR = {count: 0.004 * count for count in range(1, 65)}
LEVEL = dict.fromkeys(range(1, 65), 0.004)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write_made_bundle(tmp_path / "store", "bright", 1))


def tuner(
    machine: Machine,
    cache_dir: Path | None,
    *,
    cores: int = 2,
    overrides: Overrides | None = None,
    gpu: bool = False,
) -> Tuner:
    runtime = Runtime(device="gpu" if gpu else "cpu", cache_dir=cache_dir)
    return Tuner(
        machine.open,
        runtime,
        cores=cores,
        overrides=overrides or Overrides(),
        clocks=Clocks(machine.clock, machine.processor_clock),
    )


def test_of_batches_that_win_no_time_only_pairs_are_run(bundle: Bundle) -> None:
    _, plan = tuner(Machine(LINEAR), None).open(bundle)

    assert plan.max_batch == 2
    assert plan.source == "measured"


def test_larger_batches_that_win_time_are_run(bundle: Bundle) -> None:
    _, plan = tuner(Machine(LEVEL), None).open(bundle)

    assert plan.max_batch == 8


def test_pairs_that_cost_time_are_not_run(bundle: Bundle) -> None:
    _, plan = tuner(Machine({count: 0.004 * count**1.5 for count in range(1, 65)}), None).open(
        bundle
    )

    assert plan.max_batch == 1


def test_pairs_of_a_slow_graph_are_measured_and_run(bundle: Bundle) -> None:
    slow = {count: 0.2 * count for count in range(1, 65)}
    _, plan = tuner(Machine(slow), None).open(bundle)

    assert plan.max_batch == 2


def test_pairs_are_run_if_others_had_the_cores_while_they_were_measured(bundle: Bundle) -> None:
    rising = {count: 0.004 * count**1.5 for count in range(1, 65)}
    _, plan = tuner(Machine(rising, stolen={1: 3.0, 2: 3.0}), None).open(bundle)

    assert plan.max_batch == 2


def test_run_slots_and_threads_never_need_more_cores_than_there_are(bundle: Bundle) -> None:
    machine = Machine(LINEAR)
    tuner(machine, None, cores=6).open(bundle)
    tuner(machine, None, cores=6, overrides=Overrides(threads=4)).open(bundle)

    assert all(runtime.run_slots * runtime.threads <= 6 for runtime in machine.opened)


def test_time_that_others_take_is_no_reason_to_run_in_another_way(bundle: Bundle) -> None:
    _, plan = tuner(Machine(LINEAR, stolen={2: 5.0}), None).open(bundle)

    assert (plan.run_slots, plan.threads) == (2, 1)


@pytest.mark.parametrize(("effort", "run_slots"), [(1.3, 2), (2.0, 1)])
def test_all_threads_are_given_to_one_run_only_if_that_is_clearly_thriftier(
    bundle: Bundle, effort: float, run_slots: int
) -> None:
    _, plan = tuner(Machine(LINEAR, effort={2: effort}), None).open(bundle)

    assert (plan.run_slots, plan.threads) == (run_slots, 2 // run_slots)


def test_a_second_start_measures_nothing_and_runs_as_the_first_did(
    bundle: Bundle, tmp_path: Path
) -> None:
    _, first = tuner(Machine(LEVEL), tmp_path / "cache").open(bundle)
    machine = Machine(LEVEL)
    _, second = tuner(machine, tmp_path / "cache").open(bundle)

    assert second.source == "remembered"
    assert (second.run_slots, second.threads, second.max_batch) == (
        first.run_slots,
        first.threads,
        first.max_batch,
    )
    assert len(machine.opened) == 1
    assert sorted(machine.sizes) == sorted(
        2 * list(range(1, first.max_batch + 1))
    )  # each run slot runs each size once


def test_a_plan_that_was_measured_while_others_had_the_cores_is_not_kept(
    bundle: Bundle, tmp_path: Path
) -> None:
    busy = Machine(LINEAR, stolen={1: 3.0, 2: 3.0})
    tuner(busy, tmp_path / "cache").open(bundle)
    _, plan = tuner(Machine(LINEAR), tmp_path / "cache").open(bundle)

    assert plan.source == "measured"
    assert plan.seconds_per_image == pytest.approx(0.004)


def test_another_number_of_cores_is_measured_anew(bundle: Bundle, tmp_path: Path) -> None:
    tuner(Machine(LEVEL), tmp_path / "cache").open(bundle)
    _, plan = tuner(Machine(LEVEL), tmp_path / "cache", cores=4).open(bundle)

    assert plan.source == "measured"


def test_a_folder_that_can_not_be_written_is_no_obstacle(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _, plan = tuner(Machine(LINEAR), tmp_path / "file" / "cache").open(bundle)

    assert plan.source == "measured"


def test_what_was_kept_and_spoilt_is_measured_anew(bundle: Bundle, tmp_path: Path) -> None:
    tuner(Machine(LINEAR), tmp_path).open(bundle)
    for path in (tmp_path / "plans").iterdir():
        path.write_text('{"lanes": ')
    _, plan = tuner(Machine(LINEAR), tmp_path).open(bundle)

    assert plan.source == "measured"


@pytest.mark.parametrize(
    "change",
    [
        {"run_slots": 100_000},
        {"run_slots": -1},
        {"run_slots": 0},
        {"run_slots": True},
        {"run_slots": 1.5},
        {"threads": 10**9},
        {"max_batch": 65},
        {"seconds_per_image": 1e9},
        {"seconds_per_image": "1"},
        {"seconds_per_run": float("nan")},
        {"seconds_per_run": float("inf")},
        {"surprise": 1},
    ],
)
def test_a_kept_plan_that_nobody_could_have_measured_is_measured_anew(
    bundle: Bundle, tmp_path: Path, change: dict[str, object]
) -> None:
    tuner(Machine(LINEAR), tmp_path).open(bundle)
    for path in (tmp_path / "plans").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    _, plan = tuner(Machine(LINEAR), tmp_path).open(bundle)

    assert plan.source == "measured"


def test_what_the_settings_decide_is_not_measured(bundle: Bundle) -> None:
    machine = Machine(LEVEL)
    _, plan = tuner(machine, None, overrides=Overrides(run_slots=1, threads=1, max_batch=3)).open(
        bundle
    )

    assert (plan.run_slots, plan.threads, plan.max_batch) == (1, 1, 3)
    assert max(machine.sizes) == 3
    assert {(runtime.run_slots, runtime.threads) for runtime in machine.opened} == {(1, 1)}


def test_the_largest_batch_that_a_setting_allows_is_opened_soon_on_a_cpu(bundle: Bundle) -> None:
    machine = Machine(LINEAR)
    _, plan = tuner(machine, None, overrides=Overrides(max_batch=64)).open(bundle)

    assert plan.max_batch == 64
    assert {*range(1, 9), 16, 32, 64} <= set(machine.sizes)
    assert sum(machine.sizes) < 1000  # some 10 s of two cores, if an image takes 20 ms


def test_on_a_gpu_every_size_that_may_run_is_a_bucket_and_warm(bundle: Bundle) -> None:
    machine = Machine(LEVEL)
    _, plan = tuner(machine, None, gpu=True).open(bundle)

    assert plan.max_batch == 64
    assert machine.opened[0].buckets == (1, 2, 4, 8, 16, 32, 64)
    assert {1, 2, 4, 8, 16, 32, 64} <= set(machine.sizes)


def test_the_next_version_of_a_model_runs_as_the_one_before_and_is_not_measured_beside_it(
    bundle: Bundle,
) -> None:
    machine = Machine(LEVEL)
    measured = tuner(machine, None)
    _, first = measured.open(bundle)
    opened = len(machine.opened)
    _, second = measured.open(bundle)

    assert second == first
    assert len(machine.opened) == opened + 1
