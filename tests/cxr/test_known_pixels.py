"""Known pixels through every pitfall of grey scales, colours, character sets and views that real
archives hold."""

import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.errors import NotAChest, NotFrontal
from cxr.radiograph import Radiograph
from tests.factories import chest, make_dicom, make_jpeg, make_png, ramp, saved


def read(data: bytes, **options: Any) -> Radiograph:
    return decode(data, limits=DecodeLimits(), **options)


def codes(radiograph: Radiograph) -> set[str]:
    return {warning.code.value for warning in radiograph.warnings}


def item(**tags: Any) -> Sequence:
    """A sequence of one item."""
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return Sequence([dataset])


# --- grey scales ---


@pytest.mark.parametrize("high", [9, 10, 13, 15])
def test_values_that_stand_high_in_their_words_are_brought_down_and_junk_on_both_sides_goes(
    high: int,
) -> None:
    values = ramp(top=1023)
    junk = np.random.default_rng(0).integers(0, 2**16, values.shape).astype(np.uint16)
    field = np.uint16(1023 << (high - 9))
    stored = (values << (high - 9)) | (junk & ~field)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        data = make_dicom(
            stored, syntax=syntax, BitsStored=10, HighBit=high, WindowCenter=512, WindowWidth=1024
        )
        np.testing.assert_allclose(read(data).pixels_HW, values / 1023 * 255, atol=0.51)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "contradicts"),
    [
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME1", "INVERSE", True, False),
        ("MONOCHROME1", "IDENTITY", True, True),
        ("MONOCHROME2", None, False, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME2", "INVERSE", False, True),
    ],
)
def test_photometric_interpretation_alone_decides_polarity(
    photometric: str, shape: str | None, *, inverted: bool, contradicts: bool
) -> None:
    radiograph = read(
        make_dicom(ramp(), PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    )
    np.testing.assert_array_equal(radiograph.pixels_HW, 255 - ramp() if inverted else ramp())
    assert radiograph.processing.inverted is inverted
    assert ("polarity_contradiction" in codes(radiograph)) is contradicts


@pytest.mark.parametrize(
    ("first", "last", "signed"),
    [
        (0, 100, False),
        (100, 0, False),
        (9, 9, False),
        (3000, 4095, False),
        (-2048, -2000, True),
        (0, 0, True),
    ],
)
def test_a_range_of_padding_is_black_in_either_polarity_and_out_of_the_scale(
    first: int, last: int, *, signed: bool
) -> None:
    values = np.tile(
        np.linspace(-2048 if signed else 0, 2047 if signed else 4095, 256).astype(np.int16), (96, 1)
    )
    values[:, 200:] = first
    padded = (values >= min(first, last)) & (values <= max(first, last))
    extra = Dataset()
    for keyword, value in (("PixelPaddingValue", first), ("PixelPaddingRangeLimit", last)):
        extra.add_new(keyword, "SS" if signed else "US", value)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        stored = values if signed else values.astype(np.uint16)
        radiograph = read(
            make_dicom(
                stored,
                BitsStored=12,
                HighBit=11,
                PhotometricInterpretation=photometric,
                extra=extra,
            )
        )
        assert radiograph.pixels_HW[padded].max() == 0
        assert np.ptp(radiograph.pixels_HW[~padded]) == 255


@pytest.mark.parametrize("mixed", [("SS", False), ("US", True)])
def test_padding_of_the_wrong_sign_is_understood(mixed: tuple[str, bool]) -> None:
    kind, signed = mixed
    values = np.tile(np.linspace(0, 3000, 256), (96, 1)).astype(np.int16 if signed else np.uint16)
    values[:, :50] = np.int16(-1) if signed else np.uint16(65535)
    extra = Dataset()
    extra.add_new("PixelPaddingValue", kind, -1 if kind == "SS" else 65535)
    radiograph = read(make_dicom(values, extra=extra))
    assert radiograph.pixels_HW[:, :50].max() == 0
    assert radiograph.pixels_HW[:, 60:].max() == 255


def test_the_first_usable_of_several_windows_is_taken() -> None:
    tags: dict[str, Any] = {
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": [9, 2048, 100],
        "WindowWidth": [0, 4096, 50],
    }
    radiograph = read(make_dicom(ramp(top=4095), **tags))
    np.testing.assert_allclose(radiograph.pixels_HW, ramp(top=4095) / 4095 * 255, atol=0.51)


@pytest.mark.parametrize(
    ("function", "width", "used"),
    [("LINEAR", 0.5, False), ("LINEAR_EXACT", 0.5, True), ("SIGMOID", 0.5, True)],
)
def test_a_window_narrower_than_one_is_only_for_functions_that_allow_it(
    function: str, width: float, *, used: bool
) -> None:
    radiograph = read(
        make_dicom(ramp(), WindowCenter=100, WindowWidth=width, VOILUTFunction=function)
    )
    assert (radiograph.processing.intensity == "window") is used
    assert ("header_repaired" in codes(radiograph)) is not used


def test_a_sigmoid_is_the_standard_s() -> None:
    radiograph = read(
        make_dicom(ramp(), WindowCenter=100, WindowWidth=80, VOILUTFunction="SIGMOID")
    )
    np.testing.assert_allclose(
        radiograph.pixels_HW, 255 / (1 + np.exp(-4 * (ramp().astype(float) - 100) / 80)), atol=0.51
    )


@pytest.mark.parametrize(("bits", "stated"), [(8, 8), (10, 10), (12, 12), (16, 16), (12, 16)])
def test_a_voi_lut_has_the_depth_of_its_entries(bits: int, stated: int) -> None:
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [256, 0, stated])
    lut.add_new("LUTData", "US", [round(value / 255 * (2**bits - 1)) for value in range(256)])
    radiograph = read(make_dicom(ramp(), VOILUTSequence=Sequence([lut])))
    np.testing.assert_allclose(radiograph.pixels_HW, ramp(), atol=0.51)
    assert ("header_repaired" in codes(radiograph)) is (bits != stated)


def test_a_modality_lut_comes_before_the_window() -> None:
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [256, 0, 16])
    lut.add_new("LUTData", "US", [10 * value for value in range(256)])
    lut.ModalityLUTType = "US"
    radiograph = read(
        make_dicom(
            ramp(), ModalityLUTSequence=Sequence([lut]), WindowCenter=1275.5, WindowWidth=2551
        )
    )
    np.testing.assert_allclose(radiograph.pixels_HW, ramp(), atol=0.51)


# --- colours ---


def test_a_palette_gives_the_luma_of_its_colours() -> None:
    extra = Dataset()
    channels = {"Red": np.arange(256), "Green": 255 - np.arange(256), "Blue": np.full(256, 40)}
    for color, values in channels.items():
        extra.add_new(f"{color}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        extra.add_new(
            f"{color}PaletteColorLookupTableData", "OW", (values * 257).astype("<u2").tobytes()
        )
    radiograph = read(make_dicom(ramp(), PhotometricInterpretation="PALETTE COLOR", extra=extra))
    values = ramp().astype(float)
    np.testing.assert_allclose(
        radiograph.pixels_HW, 0.299 * values + 0.587 * (255 - values) + 0.114 * 40, atol=0.51
    )
    assert "color_input" in codes(radiograph)


def photograph() -> NDArray[np.uint8]:
    """A radiograph on a light box, somewhat yellow."""
    grey = chest(128, 128).astype(float)
    return np.stack([grey, grey * 0.95, grey * 0.7], axis=-1).astype(np.uint8)


def luma(rgb: NDArray[np.uint8]) -> Any:
    return rgb @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_an_rgb_photograph_gives_its_luma_in_either_order_of_planes(
    planar: int, syntax: Any
) -> None:
    rgb = photograph()
    stored = np.moveaxis(rgb, -1, 0).copy() if planar and syntax == ImplicitVRLittleEndian else rgb
    tags: dict[str, Any] = (
        {"PixelData": stored.tobytes()} if syntax == ImplicitVRLittleEndian else {}
    )
    radiograph = read(make_dicom(rgb, syntax=syntax, PlanarConfiguration=planar, **tags))
    np.testing.assert_allclose(radiograph.pixels_HW, luma(rgb), atol=0.51)
    assert "color_input" in codes(radiograph)


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_a_ybr_photograph_gives_its_luma_whether_compressed_or_not(photometric: str) -> None:
    rgb = photograph()
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    if photometric == "YBR_FULL":
        plain = ybr.tobytes()
    else:  # Y Y Cb Cr for two pixels (PS3.3 C.7.6.3.1.2)
        pairs = ybr.reshape(-1, 2, 3)
        plain = np.stack(
            [pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=-1
        ).tobytes()
    uncompressed = make_dicom(
        rgb, syntax=ImplicitVRLittleEndian, PhotometricInterpretation=photometric, PixelData=plain
    )
    frame = encapsulate([make_jpeg(rgb, subsampling=0 if photometric == "YBR_FULL" else 1)])
    compressed = make_dicom(
        rgb, syntax=JPEGBaseline8Bit, PhotometricInterpretation=photometric, PixelData=frame
    )
    np.testing.assert_allclose(read(uncompressed).pixels_HW, luma(rgb), atol=1)
    assert np.abs(read(compressed).pixels_HW - luma(rgb)).mean() < 2


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_is_dropped_and_not_mixed_in(alpha: int) -> None:
    image = Image.fromarray(chest(96, 96)).convert("RGBA")
    image.putalpha(alpha)
    np.testing.assert_allclose(read(saved(image, "PNG")).pixels_HW, chest(96, 96), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_each_orientation_of_exif_is_undone(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = chest(128, 96)
    turned: dict[int, Callable[[Any], Any]] = {
        1: lambda image: image, 2: np.fliplr, 3: lambda image: np.rot90(image, 2), 4: np.flipud,
        5: np.transpose,
        6: lambda image: np.rot90(image, 1), 7: lambda image: np.rot90(image, 2).T,
        8: lambda image: np.rot90(image, -1),
    }  # fmt: skip
    stored = np.ascontiguousarray(turned[orientation](upright))
    options: dict[str, Any] = {"quality": 100} if kind == "JPEG" else {}
    radiograph = read(saved(Image.fromarray(stored), kind, exif=exif, **options))
    np.testing.assert_allclose(radiograph.pixels_HW, upright, atol=3 if kind == "JPEG" else 0)


def test_colour_profiles_and_interlacing_change_no_grey() -> None:
    buffer = BytesIO()
    Image.fromarray(chest(96, 96)).save(
        buffer, "PNG", icc_profile=b"no profile at all", interlace=1
    )
    np.testing.assert_array_equal(read(buffer.getvalue()).pixels_HW, chest(96, 96))
    assert codes(read(make_png(chest(96, 96)))) == set()


# --- facts ---


@pytest.mark.parametrize(
    ("character_set", "encoding", "name", "description"),
    [
        ("ISO_IR 100", "latin-1", "Müller^Jörg", "Thorax PA"),
        ("ISO_IR 192", "utf-8", "Wang^XiaoDong=王^小東", "胸部PA"),
        ("\\ISO 2022 IR 87", "iso2022_jp", "Yamada^Tarou=山田^太郎", "胸部 PA"),
        ("ISO_IR 13", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ", "ﾑﾈ PA"),
        ("\\ISO 2022 IR 149", "euc_kr", "Hong^Gildong=洪^吉洞", "PA"),
        ("GB18030", "gb18030", "Wang^XiaoDong=王^小东", "胸部正位 PA"),
    ],
)
def test_a_view_is_found_in_every_character_set(
    character_set: str, encoding: str, name: str, description: str
) -> None:
    extra = Dataset()
    extra.add_new("SpecificCharacterSet", "CS", character_set.split("\\"))
    extra.add_new("SeriesDescription", "UN", description.encode(encoding))
    extra.add_new("PatientName", "UN", name.encode(encoding, "replace"))
    metadata = read(make_dicom(ramp(), ViewPosition=None, extra=extra)).metadata
    assert (metadata.view_position, metadata.source.view_position) == ("PA", "SeriesDescription")
    assert (metadata.age_years, metadata.sex) == (41.0, "F")


@pytest.mark.parametrize(
    "character_set", [b"ISO\0IR 192", b"\0SO_IR 192", b"ISO_ZQ 192", b"ISO-IR 192", b"\\ISO\0 2022"]
)
def test_a_character_set_that_does_not_exist_is_told_and_stops_nothing(
    character_set: bytes,
) -> None:
    item_of_it = item(SpecificCharacterSet="ISO_IR 100", CodeValue="272479007")
    data = make_dicom(
        ramp(), SpecificCharacterSet="ISO_IR 192", ViewPosition=None, ViewCodeSequence=item_of_it,
        raw={"ISO_IR 192": character_set, "ISO_IR 100": b"ISO\0IR 100"},
    )  # fmt: skip
    with warnings.catch_warnings():
        quiet_libraries()
        radiograph = read(data)
    np.testing.assert_array_equal(radiograph.pixels_HW, ramp())
    assert (radiograph.metadata.view_position, codes(radiograph)) == ("PA", {"header_repaired"})


@pytest.mark.parametrize(
    ("code", "view"),
    [
        ("272479007", "PA"),
        ("R-10214", "PA"),
        ("399348003", "AP"),
        ("R-10206", "AP"),
        ("1234", None),
    ],
)
def test_a_view_code_is_read_where_no_view_is_stated(code: str, view: str | None) -> None:
    metadata = read(
        make_dicom(ramp(), ViewPosition=None, ViewCodeSequence=item(CodeValue=code))
    ).metadata
    assert (metadata.view_position, metadata.source.view_position) == (
        view,
        "ViewCodeSequence" if view else None,
    )


@pytest.mark.parametrize("code", ["399067008", "399173006", "R-10236"])
def test_the_code_of_a_lateral_view_is_refused(code: str) -> None:
    with pytest.raises(NotFrontal):
        read(make_dicom(ramp(), ViewPosition=None, ViewCodeSequence=item(CodeValue=code)))


@pytest.mark.parametrize(
    ("orientation", "lateral"),
    [(["L", "F"], False), (["R", "F"], False), (["P", "F"], True), (["A", "F"], True)],
)
def test_an_orientation_tells_lateral_views_and_nothing_else(
    orientation: list[str], *, lateral: bool
) -> None:
    radiograph = read(
        make_dicom(ramp(), ViewPosition=None, PatientOrientation=orientation), scope="warn"
    )
    assert radiograph.metadata.view_position == ("LATERAL" if lateral else None)


@pytest.mark.parametrize(
    ("code", "is_chest"),
    [("51185008", True), ("T-D3000", True), ("39607008", True), ("72696002", None)],
)
def test_an_anatomic_region_stands_for_the_body_part(code: str, *, is_chest: bool | None) -> None:
    radiograph = read(
        make_dicom(ramp(), BodyPartExamined=None, AnatomicRegionSequence=item(CodeValue=code))
    )
    assert ("body_part_unstated" in codes(radiograph)) is (not is_chest)


@pytest.mark.parametrize("part", ["KNEE", "SKULL", "HAND", "ABDOMEN", "PELVIS"])
def test_another_body_part_is_refused_whatever_the_region_says(part: str) -> None:
    with pytest.raises(NotAChest):
        read(
            make_dicom(
                ramp(), BodyPartExamined=part, AnatomicRegionSequence=item(CodeValue="51185008")
            )
        )
