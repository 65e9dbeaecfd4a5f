"""OOD images, which are no upright frontal chest radiographs: synthetic, turned, and found.

    made      noise, gradients, scans of text, ... : drawn from a seed, never a file
    turned    radiographs shown inverted, turned by 90 and 180 degrees, or torn by broken JPEG data
    coarse    radiographs as JPEG of such low quality that its blocks show: bad, but still the same
              chests
    found     files of a folder, read past the scope check that would refuse them

Shape suffixes: N images, H and W input rows and columns, h and w thumbnail rows and columns.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from cxr import dicom
from cxr.decode import DecodeLimits, decode
from cxr.dicom.header import read_header, text
from cxr.dicom.layout import read_layout
from cxr.dicom.pixels import render
from cxr.dicom.scope import check_image, check_subject
from cxr.errors import ImageError
from cxr.preprocess import PreprocessSpec, preprocess
from cxr.radiograph import Metadata, Processing, Radiograph

Grey = NDArray[np.uint8]

MADE_IMAGES = 40
"""Images of each synthetic kind."""

_SIDE = 512
_SAME_OBJECT = 0.98
_THUMBNAIL = 16
_JPEG_QUALITY, _TORN_BYTES, _TEAR_ATTEMPTS = 30, 6, 20
_COARSE_JPEG_QUALITY = 5


@dataclass(frozen=True, slots=True)
class OodImage:
    """One image: what it is, and how it came to be (as above, or `chest` for a found one in
    scope).
    """

    kind: str
    origin: str
    image_HW: Grey


def make_ood_images(spec: PreprocessSpec, count: int = MADE_IMAGES) -> Iterator[OodImage]:
    """Return `count` synthetic images of each kind; the same ones every time."""
    for kind, draw in _MADE.items():
        for number in range(count):
            yield OodImage(
                kind, "made", _input_of(draw(np.random.default_rng([number, len(kind)])), spec)
            )


def turn(image_HW: Grey, number: int) -> Iterator[OodImage]:
    """Show one radiograph in every wrong way, and badly compressed; `number` seeds what is torn."""
    yield OodImage("inverted", "turned", 255 - image_HW)
    yield OodImage(
        "turned by 90 degrees",
        "turned",
        np.ascontiguousarray(np.rot90(image_HW, 1 + 2 * (number % 2))),
    )
    yield OodImage("turned by 180 degrees", "turned", np.ascontiguousarray(image_HW[::-1, ::-1]))
    yield OodImage(
        "torn by broken JPEG data", "turned", _tear(image_HW, np.random.default_rng(number))
    )
    yield OodImage(
        f"JPEG of quality {_COARSE_JPEG_QUALITY}",
        "coarse",
        _open_jpeg(_as_jpeg(image_HW, _COARSE_JPEG_QUALITY)),
    )


def find_ood_images(folder: Path, spec: PreprocessSpec) -> Iterator[OodImage | ImageError]:
    """Read every image of a folder, at any depth, whatever it shows. Yield the error of a file that
    can't be read.

    A DICOM file's kind comes from its header. If the scope check would let it pass, its origin is
    `chest`: it may well be a chest radiograph.
    """
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        data = path.read_bytes()
        try:
            if dicom.is_dicom(data):
                yield _read_dicom(data, spec)
            elif data.startswith((b"\x89PNG", b"\xff\xd8\xff")):
                yield OodImage(
                    path.parent.name,
                    "found",
                    preprocess(decode(data, limits=DecodeLimits(), size=spec.size), spec),
                )
        except ImageError as exc:
            yield exc


def count_objects(images: Sequence[Grey]) -> int:
    """Count the different things among images: copies in another compression are one."""
    kept: list[NDArray[np.float64]] = []
    for image_HW in images:
        thumbnail_hw = np.asarray(
            Image.fromarray(image_HW).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX),
            np.float64,
        )
        shape_hw = (thumbnail_hw - thumbnail_hw.mean()) / max(float(thumbnail_hw.std()), 1e-6)
        if all(float((shape_hw * other_hw).mean()) < _SAME_OBJECT for other_hw in kept):
            kept.append(shape_hw)
    return len(kept)


def _read_dicom(data: bytes, spec: PreprocessSpec) -> OodImage:
    limits = DecodeLimits()
    header = read_header(data, max_inflated_bytes=limits.max_inflated_bytes)
    words = (text(header, "Modality"), text(header, "BodyPartExamined"))
    kind = " ".join(word for word in words if word).lower() or "unstated"
    origin = "chest" if _says_chest(header, limits) else "found"
    header.Modality = "CR"  # ignores the stated body part, but not files that hold no single image
    check_image(header, max_pixels=limits.max_pixels)
    rendering = render(header, read_layout(header), max_pixels=limits.max_pixels)
    return OodImage(kind, origin, _input_of(rendering.pixels_HW, spec))


def _says_chest(header: Dataset, limits: DecodeLimits) -> bool:
    try:
        check_image(header, max_pixels=limits.max_pixels)
        list(check_subject(header, None, refuse=True))
    except ImageError:
        return False
    return True


def _input_of(pixels_HW: Grey, spec: PreprocessSpec) -> Grey:
    rows, columns = pixels_HW.shape
    return preprocess(Radiograph(pixels_HW, Metadata(), Processing("png", rows, columns)), spec)


def _noise(rng: np.random.Generator) -> Grey:
    return rng.integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8)


def _scene(rng: np.random.Generator) -> Grey:
    """Noise whose power falls with frequency as in photographs (Field 1987), in random
    directions.
    """
    frequency_H1, frequency_1W = np.fft.fftfreq(_SIDE)[:, None], np.fft.fftfreq(_SIDE)[None]
    distance_HW = np.hypot(frequency_H1, frequency_1W) + 1 / _SIDE
    spectrum_HW = np.fft.fft2(rng.normal(size=(_SIDE, _SIDE))) / distance_HW ** rng.uniform(
        1.0, 1.6
    )
    return _stretch(np.fft.ifft2(spectrum_HW).real)


def _gradient(rng: np.random.Generator) -> Grey:
    angle = rng.uniform(0, 2 * np.pi)
    ramp_H1, ramp_1W = np.linspace(-1, 1, _SIDE)[:, None], np.linspace(-1, 1, _SIDE)[None]
    return _stretch(np.cos(angle) * ramp_1W + np.sin(angle) * ramp_H1)


def _blank(rng: np.random.Generator) -> Grey:
    """One grey, with the faint noise of a detector without a patient."""
    return np.clip(rng.normal(rng.uniform(0, 255), 1.5, (_SIDE, _SIDE)), 0, 255).astype(np.uint8)


def _page_of_text(rng: np.random.Generator) -> Grey:
    page = Image.new("L", (_SIDE, _SIDE), 245)
    draw, size = ImageDraw.Draw(page), int(rng.integers(12, 28))
    font = ImageFont.load_default(size)
    for y in range(20, _SIDE - 30, int(1.5 * size)):
        words = ("".join(map(chr, rng.integers(97, 123, rng.integers(2, 11)))) for _ in range(14))
        draw.text((20, y), " ".join(words), 20, font)
    return np.asarray(page)


def _shapes(rng: np.random.Generator) -> Grey:
    """A drawing of flat rectangles and ellipses, as on a logo or a screen."""
    picture = Image.new("L", (_SIDE, _SIDE), int(rng.integers(256)))
    draw = ImageDraw.Draw(picture)
    for number in range(12):
        left, top = rng.integers(0, _SIDE - 40, 2).tolist()
        width, height = rng.integers(20, 300, 2).tolist()
        outline = draw.rectangle if number % 2 else draw.ellipse
        outline((left, top, left + width, top + height), fill=int(rng.integers(256)))
    return np.asarray(picture)


def _stripes(rng: np.random.Generator) -> Grey:
    period, angle = rng.uniform(8, 80), rng.uniform(0, np.pi)
    y_H1, x_1W = np.arange(_SIDE)[:, None], np.arange(_SIDE)[None]
    return _stretch(np.sin(2 * np.pi * (np.cos(angle) * x_1W + np.sin(angle) * y_H1) / period))


_MADE: dict[str, Callable[[np.random.Generator], Grey]] = {
    "noise": _noise, "scene-like noise": _scene, "gradient": _gradient, "blank": _blank,
    "page of text": _page_of_text, "drawing": _shapes, "stripes": _stripes,
}  # fmt: skip


def _stretch(values_HW: NDArray[np.float64]) -> Grey:
    low, high = values_HW.min(), values_HW.max()
    stretched_HW: Grey = np.rint(255 * (values_HW - low) / max(high - low, 1e-9)).astype(np.uint8)
    return stretched_HW


def _tear(image_HW: Grey, rng: np.random.Generator) -> Grey:
    """Break bytes of a JPEG's entropy-coded data, so that everything behind them is shifted or has
    another grey.
    """
    whole = _as_jpeg(image_HW, _JPEG_QUALITY)
    begin = whole.index(b"\xff\xda") + 16
    for _ in range(_TEAR_ATTEMPTS):
        torn = bytearray(whole)
        for place in rng.integers(begin, begin + (len(whole) - begin) // 2, _TORN_BYTES):
            torn[place] = int(rng.integers(0, 255))
        try:
            return _open_jpeg(bytes(torn))
        except OSError:  # the decoder refused it, so there is no novelty to measure
            continue
    return image_HW


def _as_jpeg(image_HW: Grey, quality: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image_HW).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _open_jpeg(data: bytes) -> Grey:
    with Image.open(BytesIO(data), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("L"))


def by_kind(images: Iterable[OodImage]) -> dict[str, list[int]]:
    """Return the places of each kind's images, kinds in order of their first."""
    places: dict[str, list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.kind, []).append(place)
    return places
