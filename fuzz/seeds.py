"""Seeds of the fuzzer: one small made file for each syntax, depth and kind of header."""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
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
    yield from _field_seeds()


def _field_seeds() -> Iterator[bytes]:
    """Make files with a shutter, another orientation, deep colours, texts in another language."""
    shallow, deep = ramp(SIDE, SIDE), ramp(SIDE, SIDE, top=4095)
    yield bytes(imagecodecs.png_encode(np.dstack([deep] * 3)))
    yield make_jpeg(np.dstack([shallow] * 3))
    yield make_dicom(
        shallow,
        syntax=JPEGExtended12Bit,
        PixelData=encapsulate([bytes(imagecodecs.jpeg_encode(deep, bitspersample=12))]),
        BitsStored=12,
        BitsAllocated=16,
        HighBit=11,
    )
    yield make_dicom(
        shallow,
        ShutterShape=["RECTANGULAR", "CIRCULAR", "POLYGONAL"],
        ShutterLeftVerticalEdge=3,
        ShutterRightVerticalEdge=60,
        ShutterUpperHorizontalEdge=4,
        ShutterLowerHorizontalEdge=61,
        CenterOfCircularShutter=[32, 32],
        RadiusOfCircularShutter=30,
        VerticesOfThePolygonalShutter=[1, 30, 60, 2, 60, 60],
        ShutterPresentationValue=100,
        PatientOrientation=["F", "R"],
        FieldOfViewRotation=90,
    )
    yield make_dicom(
        np.dstack([shallow] * 3),
        ViewPosition=None,
        ProtocolName="Thorax p.a.",
        AcquisitionDeviceProcessingDescription="CHEST,PA",
        BodyPartExamined="TORAX",
    )


def write_seeds(folder: Path) -> None:
    """Write them into a new folder."""
    folder.mkdir(parents=True)
    for number, data in enumerate(seeds()):
        (folder / f"seed-{number:02}").write_bytes(data)
