import numpy as np

from cxr.preprocess import PreprocessSpec
from training.bundle.golden_inputs import golden_images
from training.bundle.release_gates.gate import TOLERANCES


def test_golden_images_are_the_same_every_time_and_all_different() -> None:
    image_NHW = golden_images(PreprocessSpec(size=64))
    assert image_NHW.dtype == np.uint8
    assert image_NHW.shape[1:] == (64, 64)
    assert np.array_equal(image_NHW, golden_images(PreprocessSpec(size=64)))
    assert len({image_HW.tobytes() for image_HW in image_NHW}) == len(image_NHW)


def test_every_engine_has_a_tolerance_for_each_precision_that_it_runs() -> None:
    assert TOLERANCES.keys() == {
        "onnxruntime-cpu/fp32", "onnxruntime-cpu/fp16", "onnxruntime-cpu/int8",
        "onnxruntime-gpu/fp32", "onnxruntime-gpu/fp16",
        "openvino-cpu/fp32", "openvino-cpu/bf16",
    }  # fmt: skip
