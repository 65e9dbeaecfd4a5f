"""DICOM bytes to a radiograph, pitfall by pitfall, on made files with known pixels."""

import zlib
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.decode import DecodeLimits, decode
from cxr.errors import (
    CorruptImage,
    NotAChest,
    NotARadiograph,
    NotFrontal,
    TooLarge,
    UnsupportedFormat,
)
from cxr.radiograph import Radiograph
from cxr.warning_codes import WarningCode
from tests.factories import chest, encode_frame, make_dicom, ramp

LIMITS = DecodeLimits()


def read(data: bytes, **options: Any) -> Radiograph:
    return decode(data, limits=LIMITS, **options)


def codes(radiograph: Radiograph) -> set[WarningCode]:
    return {warning.code for warning in radiograph.warnings}


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
@pytest.mark.parametrize("top", [255, 4095])
def test_every_lossless_syntax_gives_the_pixels_that_were_stored(syntax: UID, top: int) -> None:
    window: dict[str, Any] = (
        {"WindowCenter": 2048, "WindowWidth": 4096, "BitsStored": 12, "HighBit": 11}
        if top > 255
        else {}
    )
    pixels = ramp(top=top)
    expected = np.rint(pixels / top * 255)
    np.testing.assert_allclose(
        read(make_dicom(pixels, syntax=syntax, **window)).pixels_HW,
        expected,
        atol=1 if top > 255 else 0,
    )


def test_jpeg_baseline_is_within_two_grey_levels_whether_scaled_or_not() -> None:
    data = make_dicom(chest(1024, 1024), syntax=JPEGBaseline8Bit)
    whole, scaled = read(data), read(data, size=224)
    assert (whole.reduction, scaled.reduction) == (1, 4)
    averaged = whole.pixels_HW.reshape(256, 4, 256, 4).mean(axis=(1, 3))
    assert np.abs(averaged - scaled.pixels_HW).max() <= 2


def test_a_syntax_nobody_reads_is_refused_by_name() -> None:
    data = make_dicom(
        ramp(), syntax=JPEGBaseline8Bit, raw={JPEGBaseline8Bit: b"1.2.840.10008.1.2.4.53"}
    )
    with pytest.raises(UnsupportedFormat):
        read(data)


def test_another_modality_is_refused_before_its_syntax_matters() -> None:
    with pytest.raises(NotARadiograph):
        read(make_dicom(ramp(), Modality="CT"))


def test_a_deflated_bomb_is_cut_at_the_limit() -> None:
    data = make_dicom(ramp(), syntax=DeflatedExplicitVRLittleEndian)
    meta_end = 132 + 12 + int.from_bytes(data[140:144], "little")
    deflater = zlib.compressobj(wbits=-15)
    bomb = data[:meta_end] + deflater.compress(bytes(50_000_000)) + deflater.flush()
    with pytest.raises(TooLarge):
        decode(bomb, limits=DecodeLimits(max_inflated_bytes=1_000_000))


def test_a_codestream_larger_than_its_header_says_is_refused_undecoded() -> None:
    data = make_dicom(
        ramp(),
        syntax=JPEGBaseline8Bit,
        PixelData=encapsulate([encode_frame(ramp(128, 128), JPEGBaseline8Bit)]),
    )
    with pytest.raises(CorruptImage):
        read(data)


def test_monochrome1_is_inverted_from_photometric_interpretation_alone() -> None:
    plain = read(make_dicom(ramp()))
    negative = read(make_dicom(255 - ramp(), PhotometricInterpretation="MONOCHROME1"))
    assert (plain.processing.inverted, negative.processing.inverted) == (False, True)
    np.testing.assert_array_equal(plain.pixels_HW, negative.pixels_HW)


def test_a_lut_shape_that_contradicts_is_warned_of_and_not_obeyed() -> None:
    radiograph = read(make_dicom(ramp(), PresentationLUTShape="INVERSE"))
    assert WarningCode.POLARITY_CONTRADICTION in codes(radiograph)
    np.testing.assert_array_equal(radiograph.pixels_HW, ramp())


def test_a_window_is_applied_as_the_standard_says() -> None:
    pixels = ramp(top=1000)
    radiograph = read(
        make_dicom(pixels, BitsStored=10, HighBit=9, WindowCenter=[500, 1], WindowWidth=[400, 2])
    )
    expected = np.clip((pixels - 499.5) / 399 + 0.5, 0, 1) * 255
    assert radiograph.processing.intensity == "window"
    np.testing.assert_allclose(radiograph.pixels_HW, expected, atol=0.51)


def test_a_window_of_no_width_is_left_aside() -> None:
    assert (
        read(make_dicom(ramp(), WindowCenter=10, WindowWidth=0)).processing.intensity == "identity"
    )


def test_rescaling_comes_before_the_window() -> None:
    shifted = read(
        make_dicom(ramp(), RescaleSlope=2, RescaleIntercept=-100, WindowCenter=155, WindowWidth=511)
    )
    np.testing.assert_allclose(shifted.pixels_HW, ramp(), atol=1)


def test_a_voi_lut_wins_over_a_window() -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [256, 0, 16], [v * 257 for v in range(255, -1, -1)]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    radiograph = read(
        make_dicom(ramp(), VOILUTSequence=Sequence([lut]), WindowCenter=1, WindowWidth=2)
    )
    assert radiograph.processing.intensity == "lut"
    np.testing.assert_array_equal(radiograph.pixels_HW, 255 - ramp())


def test_deep_images_without_a_window_are_scaled_by_percentiles_and_say_so() -> None:
    radiograph = read(make_dicom(ramp(top=3000), BitsStored=12, HighBit=11))
    assert radiograph.processing.intensity == "percentile"
    assert WarningCode.INTENSITY_GUESSED in codes(radiograph)
    assert (radiograph.pixels_HW.min(), radiograph.pixels_HW.max()) == (0, 255)


def test_padding_is_left_out_of_the_scale_and_painted_black() -> None:
    pixels = ramp(top=1000) + 1000
    pixels[:, :16] = 4000
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        padded = make_dicom(
            pixels,
            BitsStored=12,
            HighBit=11,
            PixelPaddingValue=4000,
            PhotometricInterpretation=photometric,
        )
        radiograph = read(padded)
        assert radiograph.pixels_HW[:, :16].max() == 0
        assert radiograph.pixels_HW[:, 16:].max() == 255


def test_junk_above_the_stored_bits_is_masked() -> None:
    window: dict[str, Any] = {
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": 2048,
        "WindowWidth": 4096,
    }
    clean, junk = (
        read(make_dicom(ramp(top=4095), **window)),
        read(make_dicom(ramp(top=4095) | 0xF000, **window)),
    )
    np.testing.assert_array_equal(clean.pixels_HW, junk.pixels_HW)


def test_signed_values_keep_their_sign() -> None:
    pixels = (ramp(top=4095).astype(np.int32) - 2048).astype(np.int16)
    radiograph = read(
        make_dicom(pixels, BitsStored=12, HighBit=11, WindowCenter=0, WindowWidth=4096)
    )
    np.testing.assert_allclose(radiograph.pixels_HW, ramp(top=4095) / 4095 * 255, atol=1)


def test_colour_gives_its_luma_with_a_warning() -> None:
    red = np.zeros((96, 128, 3), np.uint8)
    red[..., 0] = 255
    radiograph = read(make_dicom(red))
    assert WarningCode.COLOR_INPUT in codes(radiograph)
    assert np.unique(radiograph.pixels_HW).tolist() == [76]


@pytest.mark.parametrize(
    ("stated", "age_years"),
    [("058Y", 58.0), ("006M", 0.5), ("003W", 21 / 365.25), ("010D", 10 / 365.25), ("120Y", 120.0)],
)
def test_every_form_of_age_is_read_in_years(stated: str, age_years: float) -> None:
    metadata = read(make_dicom(ramp(), PatientAge=stated)).metadata
    assert metadata.age_years == pytest.approx(age_years)
    assert metadata.source.age_years == "PatientAge"


def test_an_age_without_a_unit_counts_years_with_a_warning() -> None:
    radiograph = read(make_dicom(ramp(), raw={"041Y": b"62  "}))
    assert radiograph.metadata.age_years == 62.0
    assert WarningCode.AGE_UNIT_ASSUMED in codes(radiograph)


@pytest.mark.parametrize("stated", [b"148 ", b"413Y", b"abcd", b"-5Y "])
def test_an_impossible_age_is_left_out_with_a_warning(stated: bytes) -> None:
    radiograph = read(make_dicom(ramp(), raw={"041Y": stated}))
    assert radiograph.metadata.age_years is None
    assert radiograph.metadata.source.age_years is None
    assert WarningCode.AGE_IMPLAUSIBLE in codes(radiograph)


def test_an_absent_age_is_derived_from_birth_and_study() -> None:
    metadata = read(
        make_dicom(ramp(), PatientAge=None, PatientBirthDate="20160101", StudyDate="20200101")
    ).metadata
    assert metadata.age_years == pytest.approx(4.0, abs=0.01)
    assert metadata.source.age_years == "PatientBirthDate"


def test_what_the_file_does_not_state_is_none() -> None:
    metadata = read(
        make_dicom(ramp(), PatientAge=None, PatientSex=None, ViewPosition=None)
    ).metadata
    assert (metadata.age_years, metadata.sex, metadata.view_position) == (None, None, None)


@pytest.mark.parametrize(
    ("tags", "view", "source"),
    [
        ({"ViewPosition": "AP"}, "AP", "ViewPosition"),
        ({"ViewPosition": "", "SeriesDescription": "view: PA"}, "PA", "SeriesDescription"),
        ({"ViewPosition": "", "SeriesDescription": "CHEST PA AND LATERAL"}, None, None),
        ({"ViewPosition": "LLO"}, None, None),
    ],
)
def test_the_view_comes_with_its_source(
    tags: dict[str, Any], view: str | None, source: str | None
) -> None:
    metadata = read(make_dicom(ramp(), **tags)).metadata
    assert (metadata.view_position, metadata.source.view_position) == (view, source)


@pytest.mark.parametrize(
    "tags", [{"ViewPosition": "LL"}, {"ViewPosition": "", "PatientOrientation": ["A", "F"]}]
)
def test_a_lateral_view_is_refused_or_warned_of(tags: dict[str, Any]) -> None:
    with pytest.raises(NotFrontal):
        read(make_dicom(ramp(), **tags))
    assert WarningCode.NOT_FRONTAL in codes(read(make_dicom(ramp(), **tags), scope="warn"))


def test_another_body_part_is_refused_or_warned_of() -> None:
    with pytest.raises(NotAChest):
        read(make_dicom(ramp(), BodyPartExamined="KNEE"))
    assert WarningCode.NOT_A_CHEST in codes(
        read(make_dicom(ramp(), BodyPartExamined="KNEE"), scope="warn")
    )
    assert WarningCode.NOT_A_CHEST not in codes(
        read(make_dicom(ramp(), BodyPartExamined="PORTABLE CHEST"))
    )


@pytest.mark.parametrize(
    "tags",
    [{"NumberOfFrames": 2}, {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
    {"PixelData": None},
     {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}],
)  # fmt: skip
def test_what_is_no_single_image_for_presentation_is_no_radiograph(tags: dict[str, Any]) -> None:
    with pytest.raises(NotARadiograph):
        read(make_dicom(ramp(), **tags))


def test_a_header_that_contradicts_its_pixels_is_corrupt() -> None:
    contradictions: list[dict[str, Any]] = [{"Rows": 97}, {"BitsStored": 9}, {"BitsStored": 0}]
    for tags in contradictions:
        with pytest.raises(CorruptImage):
            read(make_dicom(ramp(), **tags))
