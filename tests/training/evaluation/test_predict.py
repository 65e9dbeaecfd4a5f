import numpy as np
from numpy.typing import NDArray

from cxr.interpret import Outputs
from cxr.tta import POLICIES
from training.evaluation.predict import predict


class LeftHalf:
    """A graph whose logit is the mean of the left half; it notes its batch sizes."""

    engine, precision, num_facts = "test", "fp32", 0

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        self.batch_sizes.append(len(batch_NHW))
        logit_N = batch_NHW[:, :, : batch_NHW.shape[2] // 2].mean(axis=(1, 2), dtype=np.float32)
        outputs = Outputs(logit_N, logit_N[:, None, None], logit_N)
        return outputs if with_map else outputs.without_map()


def images(count: int) -> list[tuple[int, NDArray[np.uint8]]]:
    made = []
    for number in range(count):
        image_HW = np.zeros((32, 32), np.uint8)
        image_HW[:, :16] = number
        made.append((number, image_HW))
    return made


def test_every_image_keeps_its_own_answer_across_batches() -> None:
    graph = LeftHalf()
    answers = {
        key: float(outputs.logit_N[0])
        for key, outputs in predict(graph, images(37), POLICIES["mirror"][:1])
    }
    assert answers == {number: float(number) for number in range(37)}
    assert len(graph.batch_sizes) > 1


def test_the_views_of_an_image_come_together_the_plain_one_first() -> None:
    for key, outputs in predict(LeftHalf(), images(11), POLICIES["mirror"]):
        assert outputs.logit_N.tolist() == [key, 0]  # mirrored, the bright half lies on the right


def test_maps_that_nobody_wants_are_not_asked_for() -> None:
    answers = list(predict(LeftHalf(), images(20), POLICIES["mirror"], with_map=False))

    assert [outputs.cam_Nhw.shape for _, outputs in answers] == [(2, 0, 0)] * 20
