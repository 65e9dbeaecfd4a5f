"""No file holds a thread for long: what may take long is left to a process that can be stopped."""

import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from cxr.decode import DecodeLimits, decode
from cxr.errors import ImageError, NeedsWorker
from tests.factories import make_dicom
from tests.worst_files import many_scans_jpeg, noise_jpeg, png

MAX_SIDE = 4472
"""Rows and columns of an image of 20 megapixels."""

MAX_THREAD_S = 0.5
"""Processor time on a busy machine for what is estimated at 0.06 s."""


def decode_in_thread(data: bytes) -> None:
    decode(data, limits=DecodeLimits(), size=320, can_be_stopped=False)


def in_dicom(frame: bytes, side: int) -> bytes:
    pixels = np.zeros((64, 64), np.uint8)
    return make_dicom(
        pixels, syntax=JPEGBaseline8Bit, PixelData=encapsulate([frame]), Rows=side, Columns=side
    )


def behind_a_text(data: bytes) -> bytes:
    """Put a chunk before a PNG's header, so that the header is not where it usually is."""
    fake = struct.pack(">2L5B", 64, 64, 8, 0, 0, 0, 0) + b"\0" * 20
    chunk = b"tEXt" + b"a\0" + fake
    length = struct.pack(">L", len(chunk) - 4)
    return data[:8] + length + chunk + struct.pack(">L", zlib.crc32(chunk)) + data[8:]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: many_scans_jpeg(MAX_SIDE, 100, refine=True), id="100 refinements"),
        pytest.param(lambda: many_scans_jpeg(MAX_SIDE, 100), id="100 first passes"),
        pytest.param(lambda: many_scans_jpeg(2600, 100, 3, refine=True), id="three components"),
        pytest.param(
            lambda: in_dicom(many_scans_jpeg(MAX_SIDE, 100, refine=True), MAX_SIDE), id="in DICOM"
        ),
        pytest.param(lambda: noise_jpeg(3000), id="a JPEG of noise"),
        pytest.param(lambda: png(4400, 4400, 16, 6, 4), id="four channels of 16 bits"),
        pytest.param(lambda: png(4400, 4400, 8, 2, 4), id="three channels"),
        pytest.param(lambda: png(4400, 4400, 16, 0, 4, interlaced=True), id="interlaced"),
        pytest.param(lambda: png(64, 400_000, 8, 6, 4), id="a wide PNG"),
        pytest.param(
            lambda: make_dicom(np.zeros((4400, 4400, 3), np.uint8), syntax=RLELossless),
            id="run-length coded colours",
        ),
        pytest.param(lambda: make_dicom(np.zeros((4400, 4400, 3), np.uint8)), id="native colours"),
    ],
)
def test_what_may_take_long_needs_a_worker(make: Callable[[], bytes]) -> None:
    with pytest.raises(NeedsWorker):
        decode_in_thread(make())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: many_scans_jpeg(2200, 5, refine=True), id="5 scans"),
        pytest.param(lambda: many_scans_jpeg(600, 90, refine=True), id="90 scans"),
        pytest.param(lambda: noise_jpeg(1000, progressive=True), id="a progressive JPEG of noise"),
        pytest.param(lambda: noise_jpeg(1800), id="a JPEG of noise"),
        pytest.param(lambda: behind_a_text(png(4400, 4400, 16, 6, 4)), id="a header behind a text"),
        pytest.param(lambda: png(2100, 2100, 16, 0, 4), id="a deep grey PNG"),
        pytest.param(lambda: png(900, 900, 8, 2, 4, noise=True), id="a PNG of coloured noise"),
        pytest.param(lambda: make_dicom(np.zeros((4000, 4000), np.uint16)), id="native"),
    ],
)
def test_what_a_thread_decodes_does_not_take_long(make: Callable[[], bytes]) -> None:
    data = make()
    started = time.thread_time()
    with suppress(ImageError):
        decode_in_thread(data)

    assert time.thread_time() - started < MAX_THREAD_S


def test_a_detectors_jpeg_of_9_megapixels_stays_in_its_thread() -> None:
    side = 3000
    flat = many_scans_jpeg(side, 1)

    decode_in_thread(flat)
