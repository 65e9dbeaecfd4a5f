import dataclasses
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from cxr.bundle import Bundle, read_bundle
from cxr.errors import BundleError, GraphError
from cxr.graph import OnnxGraph, Precision, Runtime, open_graph
from cxr.graph.runtime import Cancellation
from cxr.manifest import FastPrecision
from cxr.metadata_features import COLUMNS
from tests.bundles import BIAS, WEIGHTS, write_made_bundle
from tests.factories import chest


def test_batches_of_every_size_give_each_image_its_own_answer(bundle: Bundle) -> None:
    graph = open_graph(bundle)
    images_NHW = np.stack([chest(32, 32, seed=seed) for seed in range(64)])
    alone = [graph.run(image_HW[None]).logit_N[0] for image_HW in images_NHW]
    for size in (1, 2, 7, 64):
        np.testing.assert_allclose(graph.run(images_NHW[:size]).logit_N, alone[:size], atol=1e-5)


def test_threads_may_run_it_at_once(bundle: Bundle) -> None:
    graph = open_graph(bundle)
    answers: dict[int, float] = {}

    def run(seed: int) -> None:
        answers[seed] = float(graph.run(chest(32, 32, seed=seed)[None]).logit_N[0])

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {
        seed: float(graph.run(chest(32, 32, seed=seed)[None]).logit_N[0]) for seed in range(8)
    }


def test_a_batch_of_the_wrong_shape_is_a_graph_error(bundle: Bundle) -> None:
    with pytest.raises(GraphError):
        open_graph(bundle).run(np.zeros((1, 8, 8), np.uint8))


def test_a_file_that_is_no_graph_is_a_bundle_error(bundle: Bundle) -> None:
    bundle.graph_path.write_bytes(b"no graph")
    with pytest.raises(BundleError):
        OnnxGraph(bundle.graph_path)


def test_a_gpu_is_never_replaced_by_the_cpu_in_silence(bundle: Bundle) -> None:
    if "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers():
        assert open_graph(bundle, Runtime(device="gpu")).engine == "onnxruntime-gpu"
    else:
        with pytest.raises(BundleError, match="CUDAExecutionProvider"):
            OnnxGraph(bundle.graph_path, Runtime(device="gpu"))


def test_a_graph_is_freed_while_its_opening_can_still_be_stopped(bundle: Bundle) -> None:
    runtime = Runtime(cancellation=Cancellation())
    graph = open_graph(bundle, runtime)
    freed = weakref.finalize(graph, lambda: None)
    del graph

    assert not freed.alive


def test_batches_filled_up_to_a_bucket_answer_as_they_are(bundle: Bundle) -> None:
    images_NHW = np.stack([chest(32, 32, seed=seed) for seed in range(6)])
    exact, filled = (
        OnnxGraph(bundle.graph_path),
        OnnxGraph(bundle.graph_path, Runtime(buckets=(4, 8))),
    )
    for count in (6, 1, 4, 3):  # a smaller batch after a larger one meets what that one left behind
        wanted, got = exact.run(images_NHW[-count:]), filled.run(images_NHW[-count:])
        np.testing.assert_allclose(got.logit_N, wanted.logit_N, atol=1e-5)
        np.testing.assert_allclose(got.cam_Nhw, wanted.cam_Nhw, atol=1e-5)


def test_an_answer_stays_as_it_is_when_the_next_one_comes(bundle: Bundle) -> None:
    graph = open_graph(bundle)
    first = graph.run(chest(32, 32, seed=1)[None])
    kept = first.logit_N.copy()
    graph.run(chest(32, 32, seed=2)[None])

    np.testing.assert_array_equal(first.logit_N, kept)


def test_fast_is_refused_where_the_bundle_does_not_allow_it_and_says_why(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="not measured"):
        open_graph(bundle, Runtime(engine="openvino", precision="fast"))
    with pytest.raises(BundleError, match="measured on openvino-cpu"):
        open_graph(allowing_fast(bundle), Runtime(precision="fast"))


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_openvino_answers_as_onnx_runtime_does_and_says_what_it_is(
    bundle: Bundle, precision: Precision
) -> None:
    pytest.importorskip("openvino", reason="the openvino extra is not installed")
    if precision == "fast" and "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no bf16 instructions")
    images_NHW = np.stack([chest(32, 32, seed=seed) for seed in range(5)])
    graph = open_graph(
        allowing_fast(bundle), Runtime(engine="openvino", precision=precision, run_slots=2)
    )

    assert (graph.engine, graph.precision) == (
        "openvino-cpu",
        {"exact": "fp32", "fast": "bf16"}[precision],
    )
    for count in (1, 5, 2):
        wanted, got = open_graph(bundle).run(images_NHW[:count]), graph.run(images_NHW[:count])
        np.testing.assert_allclose(
            got.logit_N, wanted.logit_N, atol={"exact": 1e-4, "fast": 0.1}[precision]
        )


@pytest.mark.parametrize(
    "runtime",
    [
        Runtime(),
        Runtime(buckets=(4, 8)),
        Runtime(engine="openvino"),
        Runtime(engine="openvino", run_slots=2),
    ],
    ids=["as they are", "filled up", "openvino", "openvino in two lanes"],
)
def test_what_is_known_beside_an_image_counts_for_that_image_alone(
    tmp_path: Path, runtime: Runtime
) -> None:
    if runtime.engine == "openvino":
        pytest.importorskip("openvino", reason="the openvino extra is not installed")
    write_made_bundle(tmp_path, "bright", 1, metadata=COLUMNS)
    graph = open_graph(read_bundle(tmp_path / "bright" / "1"), runtime)
    images_NHW = np.stack([chest(32, 32, seed=1)] * 6)
    facts_NM = np.eye(6, len(COLUMNS), dtype=np.float32)

    for count in (6, 1, 5):  # a smaller batch after a larger one meets what that one left behind
        outputs = graph.run(images_NHW[-count:], facts_NM[-count:])
        grey = outputs.cam_Nhw.mean(axis=(1, 2)) + BIAS
        np.testing.assert_allclose(outputs.logit_N - grey, facts_NM[-count:] @ WEIGHTS, atol=1e-4)


def test_openvino_reports_nothing_to_its_maker() -> None:
    pytest.importorskip("openvino", reason="the openvino extra is not installed")
    script = (
        "from cxr.graph.openvino import _import_openvino; import sys; _import_openvino();"
        "assert 'openvino' in sys.modules and sys.modules['openvino_telemetry'] is None"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def allowing_fast(bundle: Bundle) -> Bundle:
    fast = FastPrecision(
        engine="openvino-cpu",
        precision="bf16",
        images=100,
        auroc_change=0.0,
        flips=0.0,
        instructions="avx512_bf16",
        tool="x",
    )
    return dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"fast": fast}))
