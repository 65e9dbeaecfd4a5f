"""Pixels equal those that independent decoders (dcmtk, GDCM) give for files that they wrote
themselves."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from cxr.decode import DecodeLimits, decode
from tests.factories import chest, make_dicom, ramp

DCMTK = [
    (["dcmcjpeg", "+eb"], "dcmdjpeg"),
    (["dcmcjpeg", "+ee"], "dcmdjpeg"),
    (["dcmcjpeg", "+el"], "dcmdjpeg"),
    (["dcmcjpeg", "+e1"], "dcmdjpeg"),
    (["dcmcjpls", "+el"], "dcmdjpls"),
    (["dcmcjpls", "+en"], "dcmdjpls"),
    (["dcmcrle"], "dcmdrle"),
    (["dcmconv", "+ti"], "dcmconv"),
    (["dcmconv", "+tb"], "dcmconv"),
    (["dcmconv", "+td"], "dcmconv"),
]
GDCM = ["--jpeg", "--jpegls", "--j2k", "--rle", "--deflated"]


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    DCMTK,
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
@pytest.mark.parametrize("depth", [8, 12])
def test_pixels_equal_those_of_dcmtk(
    encoder: list[str], decoder: str, depth: int, tmp_path: Path
) -> None:
    if shutil.which(encoder[0]) is None:
        pytest.skip("no dcmtk on this machine")
    if encoder[-1] == "+eb" and depth == 12:
        return  # baseline JPEG has no 12 bits
    write_plain(tmp_path / "plain.dcm", depth)
    run(*encoder, tmp_path / "plain.dcm", tmp_path / "coded.dcm")
    run(
        decoder,
        *(["+te"] if decoder == "dcmconv" else []),
        tmp_path / "coded.dcm",
        tmp_path / "decoded.dcm",
    )
    compare(tmp_path, depth)


@pytest.mark.parametrize("option", GDCM)
@pytest.mark.parametrize("depth", [8, 12])
def test_pixels_equal_those_of_gdcm(option: str, depth: int, tmp_path: Path) -> None:
    if shutil.which("gdcmconv") is None:
        pytest.skip("no GDCM tools on this machine")
    write_plain(tmp_path / "plain.dcm", depth)
    run("gdcmconv", option, tmp_path / "plain.dcm", tmp_path / "coded.dcm")
    run("gdcmconv", "--raw", tmp_path / "coded.dcm", tmp_path / "decoded.dcm")
    compare(tmp_path, depth)


def write_plain(path: Path, depth: int) -> None:
    """Write an uncompressed file of a drawn chest with a ramp below it."""
    pixels = np.vstack([chest(200, 256), ramp(56, 256)])
    deep = pixels.astype(np.uint16) * 16 + 7
    path.write_bytes(
        make_dicom(pixels)
        if depth == 8
        else make_dicom(deep, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    )


def run(*command: object) -> None:
    """Run a tool that must succeed."""
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)


def compare(folder: Path, depth: int) -> None:
    """Our pixels of the coded file are those that the other decoder stored."""
    decoded = pydicom.dcmread(folder / "decoded.dcm")
    stored_HW: NDArray[np.uint16] = np.frombuffer(
        decoded.PixelData, f"<u{decoded.BitsAllocated // 8}"
    ).reshape(decoded.Rows, decoded.Columns)
    ours = decode((folder / "coded.dcm").read_bytes(), limits=DecodeLimits())
    assert ours.processing.transfer_syntax == str(
        pydicom.dcmread(folder / "coded.dcm").file_meta.TransferSyntaxUID
    )
    theirs_HW = stored_HW.astype(np.float64) / (2**depth - 1) * 255
    np.testing.assert_allclose(ours.pixels_HW, theirs_HW, atol=1)
