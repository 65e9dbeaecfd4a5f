import threading

import numpy as np
import pytest

from cxr.bundle import Bundle
from cxr.errors import BundleError, GraphError
from cxr.graph import OnnxGraph, open_graph
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
    assert answers == {seed: float(graph.run(chest(32, 32, seed=seed)[None]).logit_N[0]) for seed in range(8)}


def test_a_batch_of_the_wrong_shape_is_a_graph_error(bundle: Bundle) -> None:
    with pytest.raises(GraphError):
        open_graph(bundle).run(np.zeros((1, 8, 8), np.uint8))


def test_a_file_that_is_no_graph_is_a_bundle_error(bundle: Bundle) -> None:
    bundle.graph_path.write_bytes(b"no graph")
    with pytest.raises(BundleError):
        OnnxGraph(bundle.graph_path)


def test_a_gpu_is_never_replaced_by_the_cpu_in_silence(bundle: Bundle) -> None:
    if "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers():
        assert open_graph(bundle, device="gpu").engine == "onnxruntime-gpu"
    else:
        with pytest.raises(BundleError, match="CUDAExecutionProvider"):
            OnnxGraph(bundle.graph_path, device="gpu")
