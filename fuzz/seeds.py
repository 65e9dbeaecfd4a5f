"""Seeds of the fuzzer: one small made file for each syntax, depth and kind of header."""

from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.factories import make_dicom, make_jpeg, make_png, ramp

SIDE = 64


def seeds() -> Iterator[bytes]:
    """Make them."""
    shallow, deep = ramp(SIDE, SIDE), ramp(SIDE, SIDE, top=4095)
    yield make_png(shallow)
    yield make_png(deep)
    yield make_jpeg(shallow)
    yield make_jpeg(shallow, progressive=True)
    for syntax in (
        ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
        JPEGBaseline8Bit,
        JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless,
    ):  # fmt: skip
        yield make_dicom(shallow, syntax=syntax)
        if syntax != JPEGBaseline8Bit:
            yield make_dicom(deep, syntax=syntax, BitsStored=12, HighBit=11)
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [256, 0, 16], [value * 257 for value in range(256)]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    yield make_dicom(
        shallow, VOILUTSequence=Sequence([lut]), PhotometricInterpretation="MONOCHROME1"
    )
    yield make_dicom(
        deep,
        WindowCenter=[2000, 1],
        WindowWidth=[4000, 2],
        RescaleSlope=1,
        RescaleIntercept=0,
        PixelPaddingValue=0,
    )


def write_seeds(folder: Path) -> None:
    """Write them into a new folder."""
    folder.mkdir(parents=True)
    for number, data in enumerate(seeds()):
        (folder / f"seed-{number:02}").write_bytes(data)
