"""A phantom: a synthetic chest radiograph, never a patient.

It is the golden input of every bundle, the sample for a first try, and a test image.
It resembles a radiograph enough for every step of the service.

Shape suffixes: H rows, W columns.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

SAMPLE_SIDE = 1024
UID_ROOT = "2.25.195948557439137958186"
"""Under the root for identifiers made from UUIDs (PS3.5 B.2); fixed, so that the sample never
changes."""


def draw_phantom(rows: int, columns: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Draw a frontal chest phantom: shoulders, spine, lungs, ribs, heart, diaphragm, a little
    noise.

    Returns:
        `pixels_HW`, uint8, MONOCHROME2 sense; the same for the same arguments on every machine.
    """
    random = np.random.default_rng(seed)
    y_H1 = np.linspace(-1, 1, rows)[:, None]
    x_1W = np.linspace(-1, 1, columns)[None, :]
    jitter = random.uniform(-0.03, 0.03, size=8)
    body_HW = _ellipse(x_1W, y_H1, (0.0, 0.25), (0.88, 1.25))
    lungs_HW = np.maximum(
        _ellipse(x_1W, y_H1, (-0.40 + jitter[0], -0.05 + jitter[1]), (0.30, 0.62)),
        _ellipse(x_1W, y_H1, (0.40 + jitter[2], -0.05 + jitter[3]), (0.28, 0.60)),
    )
    spine_HW = np.exp(-((x_1W / 0.09) ** 2)) * (0.85 + 0.15 * np.cos(y_H1 * 40))
    heart_HW = _ellipse(x_1W, y_H1, (0.16 + jitter[4], 0.22 + jitter[5]), (0.30, 0.30))
    ribs_HW = np.maximum(np.cos((y_H1 - 0.35 * np.abs(x_1W) + jitter[6]) * 24), 0) ** 3 * (
        np.abs(x_1W) > 0.08
    )
    belly_HW = 1 / (1 + np.exp(-(y_H1 - 0.52 - 0.12 * (x_1W - jitter[7]) ** 2) * 30))
    share_HW = body_HW * (
        0.52
        - 0.40 * lungs_HW * (1 - 0.8 * heart_HW) * (1 - belly_HW)
        + 0.10 * ribs_HW
        + 0.22 * spine_HW
    )
    noisy_HW = share_HW + random.normal(0, 0.012, size=(rows, columns)) * body_HW
    pixels_HW: NDArray[np.uint8] = np.rint(np.clip(noisy_HW, 0, 1) * 255).astype(np.uint8)
    return pixels_HW


def phantom_png(side: int = SAMPLE_SIDE) -> bytes:
    """Return the phantom as an 8-bit grey PNG."""
    buffer = BytesIO()
    Image.fromarray(draw_phantom(side, side)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def phantom_dicom(side: int = SAMPLE_SIDE) -> bytes:
    """Return the phantom as an uncompressed DICOM file (CR Image Storage, PS3.3 A.2) of a
    fictitious person, 58 years, M, PA.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"{UID_ROOT}.3")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UID_ROOT}.1", f"{UID_ROOT}.2"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Phantom^Made", "PHANTOM", ""
    dataset.PatientSex, dataset.PatientAge = "M", "058Y"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = (
        "20200101",
        "120000",
        "1",
        "",
    )
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.ReferringPhysicianName, dataset.SeriesNumber, dataset.InstanceNumber = "", 1, 1
    dataset.PatientOrientation, dataset.Laterality = ["L", "F"], ""
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        8,
        8,
        7,
        0,
    )
    dataset.PixelData = draw_phantom(side, side).tobytes()
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _ellipse(
    x_1W: NDArray[np.float64],
    y_H1: NDArray[np.float64],
    center: tuple[float, float],
    radii: tuple[float, float],
) -> NDArray[np.float64]:
    """A soft-edged ellipse, 1 inside and 0 outside: float64 [H, W]; center and radii as (x, y)."""
    distance_HW = np.sqrt(
        ((x_1W - center[0]) / radii[0]) ** 2 + ((y_H1 - center[1]) / radii[1]) ** 2
    )
    return np.asarray(1 / (1 + np.exp((distance_HW - 1) * 25)))


def main() -> None:
    """Write sample.dcm and sample.png into the current folder."""
    Path("sample.dcm").write_bytes(phantom_dicom())
    Path("sample.png").write_bytes(phantom_png())


if __name__ == "__main__":
    main()
