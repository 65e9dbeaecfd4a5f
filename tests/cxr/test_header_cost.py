"""What a DICOM header may not do to a thread: lists of millions of numbers, thousands of parts."""

import struct
import time
from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from cxr.decode import DecodeLimits, decode
from cxr.errors import CorruptImage, NeedsWorker
from tests.factories import make_dicom, ramp

LIMITS = DecodeLimits()
MAX_S = 2.0
"""Of CPU time. Each file took five seconds or more when its list was read whole."""


def with_raw(**values: bytes) -> bytes:
    """Return a file in which values have lengths that only 32 bits can state."""
    extra = Dataset()
    for keyword, value in values.items():
        extra.add_new(keyword, "UN", value)
    return make_dicom(ramp(), syntax=ImplicitVRLittleEndian, extra=extra)


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def test_a_list_of_a_million_numbers_is_no_number_of_frames() -> None:
    data = with_raw(NumberOfFrames=b"1\\" * 1_000_000)

    def refuse() -> None:
        with pytest.raises(CorruptImage):
            decode(data, limits=LIMITS)

    assert cpu_seconds(refuse) < MAX_S


@pytest.mark.parametrize(
    "values",
    [
        {"PixelPaddingValue": b"\1\0" * 4_000_000},
        {
            "ShutterShape": b"POLYGONAL ",
            "VerticesOfThePolygonalShutter": b"1\\" * 20_000_000,
        },
    ],
    ids=["padding", "shutter"],
)
def test_a_list_of_millions_of_numbers_is_left_aside(values: dict[str, bytes]) -> None:
    data = with_raw(**values)

    assert cpu_seconds(lambda: decode(data, limits=LIMITS)) < MAX_S


def test_a_header_of_thousands_of_parts_is_left_to_a_process_that_can_be_stopped() -> None:
    parts = b"".join(struct.pack("<HHL", 0x0007, number, 0) for number in range(16_000))
    data = make_dicom(ramp(), syntax=ImplicitVRLittleEndian)
    end = 132 + 12 + int.from_bytes(data[140:144], "little")
    flooded = data[:end] + parts + data[end:]

    with pytest.raises(NeedsWorker):
        decode(flooded, limits=LIMITS, can_be_stopped=False)
    assert decode(flooded, limits=LIMITS).pixels_HW.shape == (96, 128)


def test_a_sequence_whose_items_have_no_length_is_left_to_such_a_process_too() -> None:
    item = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0xFFFFFFFF, 0xFFFE, 0xE00D, 0)
    end_of_items = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    sequence = struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) + item * 16_000 + end_of_items
    data = make_dicom(ramp(), syntax=ImplicitVRLittleEndian, SOPClassUID=None, Modality="CR")
    end = 132 + 12 + int.from_bytes(data[140:144], "little")

    with pytest.raises(NeedsWorker):
        decode(data[:end] + sequence + data[end:], limits=LIMITS, can_be_stopped=False)
