"""What a shutter covers is no image, and an image that the header calls turned is upright."""

from itertools import product
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless

from cxr.decode import DecodeLimits, decode
from cxr.errors import NotFrontal
from cxr.orientation import ORIENTATIONS, exchanges_sides, upright
from cxr.radiograph import Radiograph
from tests.factories import Pixels, chest, make_dicom, make_jpeg

SIDE = 96
IMAGE = chest(SIDE, SIDE + 10)
RECTANGLE: dict[str, Any] = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": 11,
    "ShutterRightVerticalEdge": 90,
    "ShutterUpperHorizontalEdge": 9,
    "ShutterLowerHorizontalEdge": 80,
}
CIRCLE: dict[str, Any] = {
    "ShutterShape": "CIRCULAR",
    "CenterOfCircularShutter": [48, 50],
    "RadiusOfCircularShutter": 40,
}
TRIANGLE: dict[str, Any] = {
    "ShutterShape": "POLYGONAL",
    "VerticesOfThePolygonalShutter": [1, 50, 90, 5, 90, 100],
}


def read(data: bytes, **options: Any) -> Radiograph:
    return decode(data, limits=DecodeLimits(), **options)


def codes(radiograph: Radiograph) -> set[str]:
    return {warning.code.value for warning in radiograph.warnings}


def covered(**tags: Any) -> Pixels:
    """Return what a shutter covers, as a white image shows it."""
    white = np.full(IMAGE.shape, 255, np.uint8)
    covered_HW: Pixels = read(make_dicom(white, **tags)).pixels_HW == 0
    return covered_HW


def test_a_rectangle_leaves_its_edges_open() -> None:
    expected = np.ones(IMAGE.shape, np.bool_)
    expected[8:80, 10:90] = False
    np.testing.assert_array_equal(covered(**RECTANGLE), expected)


def test_a_circle_leaves_what_is_within_its_radius() -> None:
    y, x = np.ogrid[1 : SIDE + 1, 1 : SIDE + 11]
    expected = (y - 48) ** 2 + (x - 50) ** 2 > 40**2
    np.testing.assert_array_equal(covered(**CIRCLE), expected)


def test_a_polygon_leaves_its_inside() -> None:
    closed = covered(**TRIANGLE)
    assert not closed[60, 49]
    assert closed[5, 5]
    assert closed[5, 100]
    assert 0.3 < 1 - closed.mean() < 0.5


def test_several_shapes_cover_what_any_of_them_covers() -> None:
    shapes = {"ShutterShape": ["RECTANGULAR", "CIRCULAR", "POLYGONAL"]}
    together = covered(**{**RECTANGLE, **CIRCLE, **TRIANGLE, **shapes})
    expected = covered(**RECTANGLE) | covered(**CIRCLE) | covered(**TRIANGLE)
    np.testing.assert_array_equal(together, expected)


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (32768, 128), (65535, 255)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_presentation_value_is_shown_whatever_white_is(
    value: int, grey: int, photometric: str
) -> None:
    radiograph = read(
        make_dicom(
            IMAGE,
            PhotometricInterpretation=photometric,
            ShutterPresentationValue=value,
            **RECTANGLE,
        )
    )
    assert radiograph.pixels_HW[0, 0] == grey
    assert codes(radiograph) == set()


@pytest.mark.parametrize("kind", ["16 bits", "colour", "jpeg", "jpeg-ls"])
def test_the_shutter_closes_over_every_kind_of_pixels(kind: str) -> None:
    deep = IMAGE.astype(np.uint16) << 4
    data = {
        "16 bits": lambda: make_dicom(deep, BitsStored=12, HighBit=11, **RECTANGLE),
        "colour": lambda: make_dicom(np.dstack([IMAGE] * 3), **RECTANGLE),
        "jpeg": lambda: make_dicom(
            IMAGE,
            syntax=JPEGBaseline8Bit,
            PixelData=encapsulate([make_jpeg(IMAGE)]),
            **RECTANGLE,
        ),
        "jpeg-ls": lambda: make_dicom(
            IMAGE,
            syntax=JPEGLSLossless,
            PixelData=encapsulate([bytes(imagecodecs.jpegls_encode(IMAGE))]),
            **RECTANGLE,
        ),
    }[kind]()
    pixels_HW = read(data, size=32).pixels_HW
    closed = covered(**RECTANGLE)
    assert not pixels_HW[closed].any()
    assert pixels_HW[~closed].mean() > 40


def test_what_the_shutter_covers_does_not_set_the_grey_scale() -> None:
    deep = (IMAGE.astype(np.uint16) << 2) + 100
    bright = deep.copy()
    bright[covered(**RECTANGLE)] = 4095
    open_, shut = (
        read(make_dicom(image, BitsStored=12, HighBit=11, **RECTANGLE)).pixels_HW
        for image in (deep, bright)
    )
    np.testing.assert_array_equal(open_, shut)


@pytest.mark.parametrize(
    "tags",
    [
        {"ShutterShape": "RECTANGULAR"},
        {"ShutterShape": "BITMAP"},
        {**RECTANGLE, "ShutterLeftVerticalEdge": 95},
        {**CIRCLE, "RadiusOfCircularShutter": 0},
        {**TRIANGLE, "VerticesOfThePolygonalShutter": [1, 1, 5]},
        {**TRIANGLE, "VerticesOfThePolygonalShutter": [1, 1, 999999, 1, 1, 999999]},
    ],
)
def test_a_shutter_without_sense_is_left_aside_and_told(tags: dict[str, Any]) -> None:
    radiograph = read(make_dicom(IMAGE, **tags))
    np.testing.assert_array_equal(radiograph.pixels_HW, IMAGE)
    assert codes(radiograph) == {"header_repaired"}


@given(edges=st.lists(st.integers(-300, 300), min_size=4, max_size=4))
def test_any_rectangle_covers_all_but_its_inside_or_is_left_aside(edges: list[int]) -> None:
    left, right, top, bottom = edges
    tags: dict[str, Any] = {
        **RECTANGLE,
        "ShutterLeftVerticalEdge": left,
        "ShutterRightVerticalEdge": right,
        "ShutterUpperHorizontalEdge": top,
        "ShutterLowerHorizontalEdge": bottom,
    }
    y, x = np.ogrid[1 : IMAGE.shape[0] + 1, 1 : IMAGE.shape[1] + 1]
    inside = (y >= top) & (y <= bottom) & (x >= left) & (x <= right)
    radiograph = read(make_dicom(IMAGE, **tags))
    expected = IMAGE if inside.mean() < 0.01 else np.where(inside, IMAGE, 0)
    np.testing.assert_array_equal(radiograph.pixels_HW, expected)


# --- orientation ---

STORED_AS = {
    ("L", "F"): IMAGE,
    ("R", "F"): IMAGE[:, ::-1],
    ("L", "H"): IMAGE[::-1],
    ("R", "H"): IMAGE[::-1, ::-1],
    ("F", "L"): IMAGE.T,
    ("F", "R"): IMAGE[:, ::-1].T,
    ("H", "L"): IMAGE[::-1].T,
    ("H", "R"): IMAGE[::-1, ::-1].T,
}
"""The image as it is stored if rows and columns run this way."""


@pytest.mark.parametrize("directions", STORED_AS)
@pytest.mark.parametrize("further", [("", ""), ("A", "P"), ("H", "L"), ("FP", "RA")])
def test_every_stated_orientation_is_brought_upright(
    directions: tuple[str, str], further: tuple[str, str]
) -> None:
    stated = [letter + more for letter, more in zip(directions, further, strict=True)]
    stored = np.ascontiguousarray(STORED_AS[directions])
    radiograph = read(make_dicom(stored, PatientOrientation=stated))
    np.testing.assert_array_equal(radiograph.pixels_HW, IMAGE)
    assert (radiograph.processing.rows, radiograph.processing.columns) == IMAGE.shape
    assert ("reoriented" in codes(radiograph)) is (directions != ("L", "F"))


@pytest.mark.parametrize("size", [None, 40])
def test_an_averaged_jpeg_is_turned_too(size: int | None) -> None:
    image = chest(200, 260)
    stored = np.ascontiguousarray(image[:, ::-1].T)
    turned = read(
        make_dicom(
            stored,
            syntax=JPEGBaseline8Bit,
            PixelData=encapsulate([make_jpeg(stored)]),
            PatientOrientation=["F", "R"],
        ),
        size=size,
    )
    plain = read(make_jpeg(image), size=size)
    assert turned.pixels_HW.shape == plain.pixels_HW.shape
    difference = np.abs(turned.pixels_HW.astype(int) - plain.pixels_HW)
    assert difference.mean() < 2


@pytest.mark.parametrize(
    "stated", [["L", "L"], ["L", "R"], ["F", "H"], ["H", "F"], ["X", "Y"], ["", "Z"]]
)
def test_directions_that_contradict_each_other_are_told_and_change_nothing(
    stated: list[str],
) -> None:
    radiograph = read(make_dicom(IMAGE, PatientOrientation=stated))
    np.testing.assert_array_equal(radiograph.pixels_HW, IMAGE)
    assert "orientation_contradiction" in codes(radiograph)


def test_half_a_statement_is_used() -> None:
    mirrored = np.ascontiguousarray(IMAGE[:, ::-1])
    for stated in ("R", ["R", ""]):
        radiograph = read(make_dicom(mirrored, PatientOrientation=stated))
        np.testing.assert_array_equal(radiograph.pixels_HW, IMAGE)


@pytest.mark.parametrize("written", [b"r/f", b"R/F", b"R,F"])
def test_a_misspelt_statement_is_used(written: bytes) -> None:
    mirrored = np.ascontiguousarray(IMAGE[:, ::-1])
    data = make_dicom(mirrored, PatientOrientation=["R", "F"], raw={"R\\F": written})
    np.testing.assert_array_equal(read(data).pixels_HW, IMAGE)


@pytest.mark.parametrize(
    "tags",
    [
        {"FieldOfViewHorizontalFlip": "YES"},
        {"FieldOfViewRotation": 90},
        {"ImageLaterality": "R", "PatientOrientation": ["L", "F"]},
        {"PatientOrientation": ["R", "F"], "FieldOfViewHorizontalFlip": "YES"},
    ],
)
def test_statements_that_do_not_agree_with_the_orientation_are_told(tags: dict[str, Any]) -> None:
    assert "orientation_contradiction" in codes(read(make_dicom(IMAGE, **tags)))


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientOrientation": ["L", "F"], "FieldOfViewHorizontalFlip": "YES"},
        {"FieldOfViewRotation": 0, "FieldOfViewHorizontalFlip": "NO"},
        {"ImageLaterality": "B"},
        {"PatientOrientation": ""},
    ],
)
def test_statements_that_agree_are_no_warning(tags: dict[str, Any]) -> None:
    assert codes(read(make_dicom(IMAGE, **tags))) == set()


@pytest.mark.parametrize("stated", [["A", "F"], ["P", "F"], ["F", "A"], ["AL", "F"], ["H", "P"]])
def test_an_image_that_runs_from_front_to_back_is_lateral(stated: list[str]) -> None:
    with pytest.raises(NotFrontal):
        read(make_dicom(IMAGE, ViewPosition=None, PatientOrientation=stated))


def test_the_eight_turns_are_the_eight_and_each_comes_back() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    seen = {
        upright(image, turn).tobytes() + bytes(upright(image, turn).shape) for turn in ORIENTATIONS
    }
    assert len(seen) == 8
    for turn, back in product(ORIENTATIONS, ORIENTATIONS):
        if np.array_equal(upright(upright(image, turn), back), image):
            assert exchanges_sides(turn) == exchanges_sides(back)
