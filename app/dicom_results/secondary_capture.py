"""A prediction's heat map as a Secondary Capture image (PS3.3 A.8.1), its caveat burnt into the
pixels.

Every archive and viewer shows one.  The words stand in bars above and below the
picture, never over the anatomy.

Shape suffixes: H rows, W columns, 3 colour channels.
"""

from io import BytesIO

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from app.dicom_results import terms
from app.dicom_results.equipment import CAVEAT, equipment, put_identity
from app.dicom_results.identifiers import instance_uid, series_uid
from app.dicom_results.source import SourceImage
from app.inference.prediction import Prediction
from cxr.heatmap import COLORS_256_3, FULL_EVIDENCE

SERIES_NUMBER = 9002
"""High, so that results stand behind the study's own series."""

_MIN_WIDTH = 512
"""Columns that the words need."""

_TEXT_SIZE, _LINE_HEIGHT, _MARGIN = 16, 22, 8
_WHITE, _RED, _BLACK = (235, 235, 235), (255, 90, 80), (0, 0, 0)


def write_capture(source: SourceImage, prediction: Prediction) -> bytes:
    """Write the picture; the prediction has a heat map."""
    image = SCImage(
        pixel_array=draw_capture(prediction),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # what highdicom insists on; the file's own follows below
        study_instance_uid=source.study_uid,
        series_instance_uid=series_uid(source, prediction, "sc"),
        series_number=SERIES_NUMBER,
        series_description=f"{prediction.version.manifest.finding[:32]} evidence, {CAVEAT.lower()}",
        sop_instance_uid=instance_uid(source, prediction, "sc"),
        instance_number=source.instance_number,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **equipment(prediction),
    )
    _describe(image, source, prediction)
    put_identity(image, source)
    buffer = BytesIO()
    image.save_as(buffer)
    return buffer.getvalue()


def _describe(image: SCImage, source: SourceImage, prediction: Prediction) -> None:
    """Say where the picture comes from and what was done to it."""
    image.PatientOrientation = list(source.orientation)
    image.Laterality = source.laterality
    image.ConversionType = "WSD"
    image.DerivationDescription = (
        f"Evidence of {prediction.version.manifest.model} drawn over the radiograph; {CAVEAT}."
    )
    image.SourceImageSequence = [_reference(source)]
    if source.is_lossy:
        image.LossyImageCompression = "01"


def _reference(source: SourceImage) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
        source.class_uid,
        source.instance_uid,
    )
    reference.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(terms.SOURCE_IMAGE)]
    return reference


def draw_capture(prediction: Prediction) -> NDArray[np.uint8]:
    """Draw the heat map between a bar with the caveat and one with the answer and the colours'
    scale.

    Returns:
        `capture_HW3`, uint8.
    """
    assert prediction.heatmap_png is not None
    picture = Image.open(BytesIO(prediction.heatmap_png))
    lines = list(_answer_lines(prediction))
    width, top = max(picture.width, _MIN_WIDTH), _LINE_HEIGHT + 2 * _MARGIN
    below = top + picture.height + _MARGIN
    canvas = Image.new("RGB", (width, below + (len(lines) + 1) * _LINE_HEIGHT + _MARGIN), _BLACK)
    canvas.paste(picture, ((width - picture.width) // 2, top))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT_SIZE)
    draw.text((_MARGIN, _MARGIN), f"{CAVEAT}: research use only", _RED, font)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, below + number * _LINE_HEIGHT), line, _WHITE, font)
    _draw_scale(canvas, below + len(lines) * _LINE_HEIGHT)
    return np.array(canvas, dtype=np.uint8)


def _answer_lines(prediction: Prediction) -> tuple[str, ...]:
    manifest, finding = prediction.version.manifest, prediction.finding
    sign = ">=" if finding.probability >= finding.threshold else "<"
    warnings = ", ".join(warning.code for warning in prediction.warnings)
    return (
        (
            f"{manifest.finding}: {finding.probability:.3f} {sign} {finding.threshold:.3f} "
            f"({finding.operating_point})"
        ),
        f"{manifest.model} {manifest.version}, SHA-256 {prediction.version.bundle.sha256[:16]}",
        *((f"warnings: {warnings}",) if warnings else ()),
    )


def _draw_scale(canvas: Image.Image, y: int) -> None:
    """Draw the colours' scale with its ends: evidence in units of the logit, the same in every
    picture.
    """
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT_SIZE)
    left, width = 100, 200
    draw.text((_MARGIN, y), "evidence 0", _WHITE, font)
    colors_1W3 = np.rint(COLORS_256_3[np.linspace(0, 255, width).astype(int)]).astype(np.uint8)[
        None
    ]
    canvas.paste(
        Image.fromarray(colors_1W3).resize((width, 12), Image.Resampling.NEAREST), (left, y + 4)
    )
    draw.text(
        (left + width + _MARGIN, y), f"{FULL_EVIDENCE:g} (no outline of a lesion)", _WHITE, font
    )
