"""What holds for every header: facts and grey levels, against formulas of the standard that are
written out here once more."""

import math
import warnings
from contextlib import suppress
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.errors import ImageError
from cxr.radiograph import Radiograph
from tests.factories import make_dicom, ramp

SIDE = 64
everywhere = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def read(pixels: NDArray[Any] | None = None, *, scope: Any = "warn", **tags: Any) -> Radiograph:
    """Make a file and decode it."""
    return decode(
        make_dicom(ramp(SIDE, SIDE) if pixels is None else pixels, **tags),
        limits=DecodeLimits(),
        scope=scope,
    )


def codes(radiograph: Radiograph) -> set[str]:
    return {warning.code.value for warning in radiograph.warnings}


# --- facts ---


@everywhere
@given(st.integers(0, 999), st.sampled_from("YMWD"))
def test_every_legal_age_is_read_in_years(number: int, unit: str) -> None:
    radiograph = read(PatientAge=f"{number:03}{unit}")
    years = number / {"Y": 1, "M": 12, "W": 52.178571, "D": 365.25}[unit]
    if years > 120:
        assert radiograph.metadata.age_years is None
        assert "age_implausible" in codes(radiograph)
    else:
        assert radiograph.metadata.age_years == pytest.approx(years)


@everywhere
@given(
    st.dates(date(1850, 1, 1), date(2100, 1, 1)),
    st.dates(date(1990, 1, 1), date(2050, 1, 1)),
    st.sampled_from(["StudyDate", "AcquisitionDate"]),
)
def test_an_age_between_two_dates_is_exact_or_left_out(
    born: date, studied: date, source: str
) -> None:
    dates: dict[str, Any] = {"PatientBirthDate": f"{born:%Y%m%d}", source: f"{studied:%Y%m%d}"}
    radiograph = read(PatientAge=None, **dates)
    days = studied.toordinal() - born.toordinal()
    if 0 <= days <= 120 * 365.25:
        assert radiograph.metadata.age_years == pytest.approx(days / 365.25)
        assert radiograph.metadata.source.age_years == "PatientBirthDate"
    else:
        assert radiograph.metadata.age_years is None
        assert "age_implausible" in codes(radiograph)


WORDS = {
    "PA": "PA",
    "AP": "AP",
    "LATERAL": "LATERAL",
    "LL": "LATERAL",
    "": None,
    "ERECT": None,
    "SUPINE": None,
}


@everywhere
@given(
    st.lists(st.sampled_from(sorted(WORDS)), max_size=2),
    st.lists(st.sampled_from(sorted(WORDS)), max_size=3),
)
def test_a_view_is_the_only_one_that_a_text_names(
    position: list[str], description: list[str]
) -> None:
    metadata = read(
        ViewPosition=" ".join(position), SeriesDescription=" ".join(description)
    ).metadata
    for words, source in ((position, "ViewPosition"), (description, "SeriesDescription")):
        views = {WORDS.get(word) for word in words} - {None}
        if len(views) == 1:
            assert (metadata.view_position, metadata.source.view_position) == (views.pop(), source)
            return
    assert (metadata.view_position, metadata.source.view_position) == (None, None)


FACTS = (
    "PatientAge", "PatientSex", "PatientBirthDate", "StudyDate", "AcquisitionDate", "ViewPosition",
    "SeriesDescription",
    "PatientOrientation", "PatientName", "PresentationLUTShape", "BodyPartExamined", "WindowCenter",
    "WindowWidth",
    "VOILUTFunction", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "ViewCodeSequence",
    "AnatomicRegionSequence",
    "VOILUTSequence",
)  # fmt: skip
"""Elements that describe and are not needed: whatever they hold, the picture is read."""


@settings(everywhere, max_examples=100)
@given(
    st.dictionaries(st.sampled_from(FACTS), st.binary(max_size=40), max_size=6),
    st.text("ABCIORSU_ 0129\\\0", min_size=10, max_size=10),
)
def test_illegal_facts_never_fail(values: dict[str, bytes], character_set: str) -> None:
    with warnings.catch_warnings():
        quiet_libraries()
        tags: dict[str, Any] = {
            "SpecificCharacterSet": "ISO_IR 192",
            "raw": {"ISO_IR 192": character_set.encode()},
            **dict.fromkeys(values),
        }
        metadata = read(extra=unlike_their_type(values), **tags).metadata
    assert metadata.age_years is None or 0 <= metadata.age_years <= 120
    assert metadata.sex in ("M", "F", "O", None)
    assert metadata.view_position in ("PA", "AP", "LATERAL", None)


@everywhere
@given(
    st.dictionaries(
        st.sampled_from(
            ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
            "SamplesPerPixel",
             "PhotometricInterpretation", "NumberOfFrames", "PlanarConfiguration", "Modality",
             "PixelData"]
        ),
        st.binary(max_size=20), min_size=1, max_size=3,
    )
)  # fmt: skip
def test_illegal_descriptions_of_pixels_are_refused_or_read(values: dict[str, bytes]) -> None:
    with suppress(ImageError):
        radiograph = read(extra=unlike_their_type(values), **dict.fromkeys(values))
        assert min(radiograph.pixels_HW.shape) >= SIDE


def unlike_their_type(values: dict[str, bytes]) -> Dataset:
    """Elements whose bytes are none of what their keyword stands for."""
    dataset = Dataset()
    for keyword, value in values.items():
        dataset.add(DataElement(tag_for_keyword(keyword) or 0, "OB", value))
    return dataset


# --- grey levels ---


@st.composite
def descriptions(draw: st.DrawFn) -> dict[str, Any]:
    """How stored values lie in their words, and what they mean; within the standard, all of it."""
    allocated = draw(st.sampled_from([8, 16]))
    stored = draw(st.integers(4, allocated))
    high = draw(st.integers(stored - 1, allocated - 1))
    slope = draw(st.sampled_from([-2.5, -1.0, 0.5, 1.0, 3.0]))
    function = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    window = {
        "WindowCenter": draw(st.integers(-300, 3000)), "WindowWidth": draw(st.integers(1, 4000)),
        "VOILUTFunction": function,
    }  # fmt: skip
    scales: list[dict[str, Any]] = [{}, window, {"VOILUTSequence": draw(luts())}]
    return {
        "BitsAllocated": allocated, "BitsStored": stored, "HighBit": high,
        "PixelRepresentation": draw(st.integers(0, 1)),
        "PhotometricInterpretation": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
        "RescaleSlope": slope, "RescaleIntercept": draw(st.integers(-500, 500)),
        **draw(st.sampled_from(scales)),
    }  # fmt: skip


@st.composite
def luts(draw: st.DrawFn) -> Sequence:
    """A rising VOI LUT of any depth, which begins anywhere."""
    bits, count = draw(st.integers(8, 16)), draw(st.integers(2, 300))
    lut = Dataset()
    lut.add_new("LUTDescriptor", "SS", [count, draw(st.integers(-400, 400)), bits])
    lut.add_new(
        "LUTData", "US", [round(place / (count - 1) * (2**bits - 1)) for place in range(count)]
    )
    return Sequence([lut])


@settings(everywhere, max_examples=60)
@given(descriptions(), st.integers(0, 2**32 - 1))
def test_grey_levels_are_those_of_the_standard_s_formulas(
    description: dict[str, Any], seed: int
) -> None:
    words_HW = np.random.default_rng(seed).integers(
        0, 2 ** description["BitsAllocated"], (SIDE, SIDE)
    )
    radiograph = read(words_HW.astype(f"u{description['BitsAllocated'] // 8}"), **description)
    share_HW = shares(words_HW, description)
    if description["PhotometricInterpretation"] == "MONOCHROME1":
        share_HW = 1 - share_HW
    assert radiograph.processing.inverted == (
        description["PhotometricInterpretation"] == "MONOCHROME1"
    )
    np.testing.assert_allclose(radiograph.pixels_HW, share_HW * 255, atol=0.5001)


def shares(words_HW: NDArray[np.int64], description: dict[str, Any]) -> Any:
    """Brightness of each pixel, 0 to 1, before polarity (PS3.5 section 8.1.1, PS3.3 C.11.1 and
    C.11.2)."""
    bits, signed = description["BitsStored"], description["PixelRepresentation"] == 1
    stored_HW = words_HW // 2 ** (description["HighBit"] + 1 - bits) % 2**bits
    stored_HW = stored_HW - 2**bits * (signed & (stored_HW >= 2 ** (bits - 1)))
    value_HW = stored_HW * description["RescaleSlope"] + description["RescaleIntercept"]
    if "WindowCenter" in description:
        window = (
            description["VOILUTFunction"],
            description["WindowCenter"],
            description["WindowWidth"],
        )
        return np.vectorize(lambda value: windowed(value, *window))(value_HW)
    if "VOILUTSequence" in description:
        lut = description["VOILUTSequence"][0]
        count, first, depth = lut.LUTDescriptor
        place_HW = np.clip(np.rint(value_HW) - first, 0, count - 1).astype(int)
        return np.asarray(lut.LUTData)[place_HW] / (2**depth - 1)
    if bits <= 8 and not signed and description["RescaleSlope"] > 0:
        return stored_HW / (2**bits - 1)
    low, high = np.quantile(value_HW, [0.01, 0.99], method="inverted_cdf")
    return np.clip((value_HW - low) / (high - low), 0, 1)


def windowed(value: float, function: str, center: float, width: float) -> float:
    """One value through a window, case by case (PS3.3 C.11.2.1.2.1 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(700.0, -4 * (value - center) / width)))
    if function == "LINEAR_EXACT":
        return min(1.0, max(0.0, (value - center) / width + 0.5))
    if value <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if value > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (value - (center - 0.5)) / (width - 1) + 0.5
