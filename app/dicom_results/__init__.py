"""A prediction as a DICOM object: a structured report, or a picture of its evidence.

    source         what is taken over from the uploaded file's header, repaired on a copy
    identifiers    unique identifiers: the same request about the same file has the same ones
    terms          coded concepts
    report         sr: Comprehensive 3D SR by TID 1500
    capture        sc: Secondary Capture of the heat map, with its caveat burnt in

The patient's identity goes from the file's header into the object and nowhere
else.  highdicom takes a third of a second to import, so it is imported where an
object is written, and never by a service that writes none.
"""

import logging
from collections.abc import Callable
from typing import Literal

from app.dicom_results.source import SourceImage, read_source
from app.inference.prediction import Prediction
from cxr.decode import sniff
from cxr.errors import CorruptImage, ImageError, UnsupportedFormat

__all__ = ["MEDIA_TYPE", "ResultKind", "require_dicom", "write_result"]

ResultKind = Literal["sr", "sc"]

MEDIA_TYPE = "application/dicom"

logger = logging.getLogger("cxr.results")


def require_dicom(data: bytes) -> None:
    """Refuse an upload that no DICOM object could refer to; raises `UnsupportedFormat`."""
    if sniff(data) != "dicom":
        raise UnsupportedFormat(
            "A DICOM result refers to the DICOM image that it is about, and a PNG or JPEG has no "
            "identity to refer to. "
            "Send the DICOM file, or send this one to /predict."
        )


def write_result(
    kind: ResultKind, data: bytes, prediction: Prediction, *, max_inflated_bytes: int
) -> bytes:
    """Write the answer about an upload as a DICOM file.

    Args:
        kind: `sr` for a structured report, `sc` for a picture; that needs the prediction's heat
            map.
        data: the upload, a DICOM file that was classified.
        prediction: the answer.
        max_inflated_bytes: bound on a deflated header.

    Raises:
        CorruptImage: the header names no study, series or instance to refer to.
    """
    source = read_source(data, max_inflated_bytes=max_inflated_bytes)
    write = _writer(kind)
    try:
        return write(source, prediction)
    except (ImageError, MemoryError):
        raise
    except (
        Exception
    ) as exc:  # pydicom and highdicom raise errors of many kinds on values that they can't write
        logger.exception("a result could not be written")
        raise CorruptImage("The file's header can't be carried over into a DICOM result.") from exc


def _writer(kind: ResultKind) -> Callable[[SourceImage, Prediction], bytes]:
    if kind == "sr":
        from app.dicom_results.structured_report import write_report  # noqa: PLC0415 - see the module's docstring

        return write_report
    from app.dicom_results.secondary_capture import write_capture  # noqa: PLC0415

    return write_capture
