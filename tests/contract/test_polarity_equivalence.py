"""A radiograph is the same radiograph however its grey levels are stored."""

from pathlib import Path

import httpx
import pydicom
import pytest

from cxr.decode import DecodeLimits, decode
from tests.factories import make_dicom


def test_uncompressed_twins_of_either_polarity_have_one_probability(
    client: httpx.Client, test_data: Path
) -> None:
    for path in sorted((test_data / "siim").rglob("*.dcm"))[:20]:
        pixels_HW = decode(path.read_bytes(), limits=DecodeLimits()).pixels_HW
        twins = (
            make_dicom(pixels_HW),
            make_dicom(255 - pixels_HW, PhotometricInterpretation="MONOCHROME1"),
        )
        answers = [client.post("/predict", files={"file": twin}).json() for twin in twins]
        assert [answer["processing"]["inverted"] for answer in answers] == [False, True]
        assert answers[0]["probability"] == pytest.approx(answers[1]["probability"], abs=1e-6)


def test_the_pixels_of_a_twin_are_the_compressed_file_s_own(test_data: Path) -> None:
    for path in sorted((test_data / "siim").rglob("*.dcm"))[:20]:
        with pydicom.config.disable_value_validation():
            stored_HW = pydicom.dcmread(path).pixel_array
        assert (decode(path.read_bytes(), limits=DecodeLimits()).pixels_HW == stored_HW).all()
