from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxr.appearance import appearance_warnings, likeness, polarity
from cxr.decode import DecodeLimits, decode
from cxr.preprocess import PreprocessSpec, preprocess
from tests.factories import chest


def codes(image_HW: NDArray[np.uint8]) -> list[str]:
    return [warning.code.value for warning in appearance_warnings(Image.fromarray(image_HW))]


def page_of_text() -> NDArray[np.uint8]:
    page = Image.new("L", (512, 512), 255)
    draw = ImageDraw.Draw(page)
    for line in range(20):
        draw.text((30, 20 + 24 * line), "The quick brown fox jumps over the lazy dog", 0)
    return np.asarray(page.reduce(2))


def test_a_chest_passes_and_its_negative_looks_inverted() -> None:
    for seed in range(5):
        image_HW = chest(224, 224, seed=seed)
        assert codes(image_HW) == []
        assert codes(255 - image_HW) == ["looks_inverted"]
        assert polarity(255 - image_HW) == pytest.approx(-polarity(image_HW), abs=1e-6)


@pytest.mark.parametrize(
    "image_HW",
    [np.full((224, 224), 130, np.uint8), np.zeros((32, 32), np.uint8), page_of_text()],
    ids=["grey", "black", "text"],
)
def test_what_has_no_radiographs_greys_is_said(image_HW: NDArray[np.uint8]) -> None:
    assert codes(image_HW) == ["few_greys"]


def test_what_is_shaped_unlike_a_chest_is_said() -> None:
    noise_HW = np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8)
    assert codes(noise_HW) == ["looks_unlike_a_chest"]
    assert codes(np.ascontiguousarray(np.rot90(chest(224, 224)))) == ["looks_unlike_a_chest"]
    assert likeness(Image.fromarray(chest(224, 224))) > 0.9
    assert likeness(Image.fromarray(np.full((224, 224), 9, np.uint8))) == 0


def test_small_inputs_are_not_blamed_for_few_pixels() -> None:
    assert codes(chest(32, 32)) == []


def test_hardly_a_real_film_is_flagged_and_hardly_a_negative_missed(test_data: Path) -> None:
    radiographs = [
        *sorted((test_data / "siim").rglob("*.dcm"))[::4],
        *sorted((test_data / "pneumonia/train").rglob("*.jpeg"))[::100],
    ]
    images = [
        preprocess(
            decode(radiograph.read_bytes(), limits=DecodeLimits(), size=224, scope="warn"),
            PreprocessSpec(size=224),
        )
        for radiograph in radiographs
    ]
    assert sum(bool(codes(image_HW)) for image_HW in images) <= 0.01 * len(images)
    assert sum(codes(255 - image_HW) == ["looks_inverted"] for image_HW in images) >= 0.99 * len(
        images
    )
