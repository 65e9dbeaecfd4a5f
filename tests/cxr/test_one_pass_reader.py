"""The one-pass scan of a data set against pydicom's reader, element for element."""

import random
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxr.dicom.header import read_meta
from cxr.dicom.one_pass_reader import Elements, scan, scan_meta
from cxr.dicom.pydicom_settings import quiet_pydicom
from tests.factories import chest, make_dicom

SCANNED = (ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEG2000Lossless, RLELossless)
META_START = 132
CHARACTER_SET = BaseTag(0x00080005)


def by_pydicom(data: bytes) -> Elements:
    """Return the raw elements of pydicom's reader."""
    quiet_pydicom()
    dataset = dcmread(BytesIO(data), force=True)
    return {tag: dataset.get_item(tag) for tag in dataset.keys()}  # noqa: SIM118 -- values() converts


def as_tuples(elements: Elements) -> dict[BaseTag, tuple[object, ...]]:
    """Return what can be compared of elements; pydicom converts empty ones and the character
    set at once.
    """
    dataset = Dataset(elements)

    def comparable(element: DataElement | RawDataElement | None) -> tuple[object, ...]:
        if isinstance(element, RawDataElement):
            return tuple(element)
        assert element is not None
        return (element.tag, element.VR, element.value)

    if CHARACTER_SET in elements:
        dataset[CHARACTER_SET]
    return {tag: comparable(dataset.get_item(tag)) for tag in elements}


def scanned(data: bytes) -> Elements | None:
    _, end = read_meta(data)
    return scan(data, end)


def with_sequence() -> Dataset:
    item = Dataset()
    item.CodeValue = "T-D3000"
    extra = Dataset()
    extra.AnatomicRegionSequence = Sequence([item])
    return extra


@pytest.mark.parametrize("syntax", SCANNED, ids=lambda syntax: syntax.name)
def test_a_scan_gives_the_elements_of_pydicom(syntax: UID) -> None:
    data = make_dicom(chest(64, 64), syntax=syntax, WindowCenter="", extra=with_sequence())
    elements = scanned(data)

    assert elements is not None
    assert as_tuples(elements) == as_tuples(by_pydicom(data))


def test_the_meta_information_ends_where_pydicom_says() -> None:
    data = make_dicom(chest(64, 64))
    found = scan_meta(data, META_START)

    assert found is not None
    elements, end = found
    group_length = elements[BaseTag(0x00020000)].value
    assert isinstance(group_length, bytes)
    assert end == META_START + 12 + int.from_bytes(group_length, "little")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_another_encoding_is_left_to_pydicom(syntax: UID) -> None:
    assert scanned(make_dicom(chest(64, 64), syntax=syntax)) is None


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("cut short", lambda data: data[:-10]),
        ("with a rest", lambda data: data + b"\0" * 5),
        ("out of order", lambda data: data.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x01\x00CS")),
        (
            "with an unknown VR",
            lambda data: data.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00ZZ"),
        ),
    ],
)
def test_an_unusual_data_set_is_left_to_pydicom(name: str, spoil: object) -> None:
    assert callable(spoil), name
    data = make_dicom(chest(64, 64))
    spoilt = spoil(data)

    assert spoilt != data
    assert scanned(spoilt) is None


def test_whatever_a_scan_gives_is_what_pydicom_gives() -> None:
    """Ten thousand damaged files: the scan gives None, or the same elements."""
    sound = [make_dicom(chest(64, 64), syntax=syntax) for syntax in SCANNED[:2]]
    num_scanned = 0
    for seed in range(10_000):
        data = damaged(random.Random(seed), sound)
        _, end = read_meta(sound[0])
        elements = scan(data, end)
        if elements is not None:
            num_scanned += 1
            assert as_tuples(elements) == as_tuples(by_pydicom(data)), seed

    assert 500 < num_scanned < 9500


def damaged(draw: random.Random, sound: list[bytes]) -> bytes:
    """Change some bytes of a data set, most of them in its header; its meta part stays."""
    data = bytearray(draw.choice(sound))
    _, start = read_meta(bytes(data))
    for _ in range(draw.choice((1, 1, 2, 5))):
        position = draw.randrange(start, min(len(data), start + 900))
        data[position] = draw.choice((0, 1, 2, 8, 0x10, 0xFF, draw.randrange(256)))
    return bytes(data)


def test_real_files_are_scanned_as_pydicom_reads_them(test_data: Path) -> None:
    files = sorted((test_data / "siim").rglob("*.dcm"))
    for path in files:
        data = path.read_bytes()
        elements = scanned(data)
        assert elements is not None, path.name
        assert as_tuples(elements) == as_tuples(by_pydicom(data))

    assert files
