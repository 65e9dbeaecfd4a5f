from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from cxr.decode import DecodeLimits, decode
from cxr.errors import NotARadiograph
from cxr.warning_codes import WarningCode
from tests.factories import chest, make_jpeg, make_png, ramp, saved

LIMITS = DecodeLimits()


@pytest.mark.parametrize(("top", "guessed"), [(65535, False), (4095, True), (1023, True)])
def test_a_deep_png_is_read_at_the_depth_that_it_uses(top: int, *, guessed: bool) -> None:
    radiograph = decode(make_png(ramp(top=top)), limits=LIMITS)
    np.testing.assert_allclose(radiograph.pixels_HW, ramp(top=top) / top * 255, atol=0.51)
    assert (WarningCode.INTENSITY_GUESSED in {c.code for c in radiograph.warnings}) is guessed


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_every_kind_of_png_gives_its_brightness(mode: str) -> None:
    pixels = np.where(ramp() > 127, 255, 0).astype(np.uint8)
    radiograph = decode(saved(Image.fromarray(pixels).convert(mode), "PNG"), limits=LIMITS)
    np.testing.assert_allclose(radiograph.pixels_HW, pixels, atol=1)
    assert radiograph.warnings == ()


def test_a_moving_png_is_no_radiograph() -> None:
    frames = [Image.fromarray(chest(seed=seed)) for seed in range(2)]
    with pytest.raises(NotARadiograph):
        decode(saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), limits=LIMITS)


def test_a_jpeg_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = chest(512, 400)
    radiograph = decode(make_jpeg(pixels, exif=exif), limits=LIMITS, size=128)
    assert (radiograph.processing.rows, radiograph.processing.columns) == (400, 512)
    assert radiograph.pixels_HW.shape == (200, 256)


def test_a_cmyk_jpeg_gives_its_brightness() -> None:
    radiograph = decode(
        saved(Image.fromarray(chest()).convert("RGB").convert("CMYK"), "JPEG", quality=95),
        limits=LIMITS,
    )
    assert np.abs(radiograph.pixels_HW.astype(int) - chest()).mean() < 4


@pytest.mark.parametrize("make", [make_png, make_jpeg])
def test_colours_are_warned_of_and_three_equal_channels_are_not(make: Callable[..., bytes]) -> None:
    grey = np.repeat(chest()[..., None], 3, axis=2)
    tinted = grey.copy()
    tinted[100:110, 100:110] = (200, 60, 60)
    for pixels, expected in ((grey, []), (tinted, [WarningCode.COLOR_INPUT])):
        assert [
            warning.code for warning in decode(make(pixels), limits=LIMITS).warnings
        ] == expected
