import asyncio
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from app.inference.classifier import PREVIEW_SIDE
from cxr.decode import DecodeLimits, decode
from tests.app.fake_graph import FakeGraph
from tests.app.serving import Served, serving, until
from tests.factories import chest, make_dicom, make_png

pytestmark = pytest.mark.anyio


async def preview(served: Served, data: bytes) -> NDArray[np.uint8]:
    """Ask for a file's picture; gives its grey levels."""
    response = await served.client.post("/preview", content=data)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return np.asarray(Image.open(BytesIO(response.content)))


@pytest.mark.parametrize(
    "data",
    [
        make_dicom(chest(1100, 1300), syntax=JPEG2000Lossless),
        make_dicom(chest(1024, 1024), syntax=JPEGBaseline8Bit),
        make_dicom(chest(200, 300), PhotometricInterpretation="MONOCHROME1"),
        make_dicom(chest(200, 300).astype(np.uint16) * 16, WindowCenter="1200", WindowWidth="900"),
        make_png(chest(200, 300).astype(np.uint16) * 16),
    ],
    ids=["jpeg 2000", "jpeg", "monochrome1", "window", "png of 16 bits"],
)
async def test_a_picture_is_the_radiograph_as_the_service_reads_it(
    served: Served, data: bytes
) -> None:
    read_HW = decode(data, limits=DecodeLimits(), size=None, scope="refuse").pixels_HW
    np.testing.assert_array_equal(await preview(served, data), read_HW)


async def test_a_picture_is_bounded(served: Served) -> None:
    assert (await preview(served, make_png(chest(100, PREVIEW_SIDE + 1000)))).shape[
        1
    ] == PREVIEW_SIDE


async def test_what_can_not_be_classified_can_not_be_shown(served: Served) -> None:
    refused = await served.client.post(
        "/preview", content=make_dicom(chest(), BodyPartExamined="KNEE")
    )
    unread = await served.client.post("/preview", content=b"%PDF-1.7")
    assert [answer.json()["code"] for answer in (refused, unread)] == [
        "not_a_chest",
        "unsupported_format",
    ]


async def test_a_client_that_reads_no_png_is_told_so(served: Served, png: bytes) -> None:
    answer = await served.client.post(
        "/preview", content=png, headers={"accept": "application/json"}
    )
    assert answer.json()["code"] == "not_acceptable"


async def test_pictures_wait_in_the_same_queue_as_predictions(
    store: Path, graph: FakeGraph, png: bytes
) -> None:
    async with serving(store, opener=graph.open, queue_capacity=1) as served:
        graph.gate.clear()
        waiting = asyncio.create_task(served.client.post("/predict", content=png))
        started = len(graph.batch_sizes)
        await until(lambda: len(graph.batch_sizes) > started)
        refused = await served.client.post("/preview", content=png)
        graph.gate.set()
        await waiting
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
