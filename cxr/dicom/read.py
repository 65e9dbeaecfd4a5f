"""One DICOM upload from bytes to a radiograph."""

from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cxr.dicom.codecs import CODECS, check_frame
from cxr.dicom.header import read_header, read_meta, text, transfer_syntax
from cxr.dicom.layout import read_layout
from cxr.dicom.metadata import read_metadata
from cxr.dicom.orientation import stated_orientation
from cxr.dicom.pixels import render
from cxr.dicom.scope import check_image, check_subject
from cxr.errors import NeedsWorker, NotARadiograph
from cxr.image_size import jpeg_reduction
from cxr.orientation import exchanges_sides, upright
from cxr.radiograph import Processing, Radiograph

DIRECTORY_UID = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class DicomLimits:
    """Bounds on one file: pixels by header and by codestream, bytes after inflating."""

    max_pixels: int
    max_inflated_bytes: int
    in_thread: bool = False
    """Whether the caller can't be stopped, so that slow files are left to a worker process."""


def read_dicom(
    data: bytes, *, limits: DicomLimits, size: int | None, refuse_scope: bool
) -> Radiograph:
    """Read a DICOM radiograph: header, then scope, then pixels.

    Args:
        data: the file, with its preamble.
        limits: bounds that hold before memory is taken.
        size: side of the model's input, as far as which a JPEG may be averaged while decoding.
        refuse_scope: refuse another body part or a lateral view; else warn.

    Raises:
        ImageError: any of its kinds.
        NeedsWorker: the file is read `in_thread` and may take long.
    """
    dataset = _read_image_header(data, limits)
    check_image(dataset, max_pixels=limits.max_pixels)
    metadata, warnings = read_metadata(dataset)
    subject_warnings = tuple(check_subject(dataset, metadata.view_position, refuse=refuse_scope))
    layout = read_layout(dataset)
    rows, columns = layout.rows, layout.columns
    outline = check_frame(dataset, layout) if limits.in_thread else None
    rendering = render(
        dataset,
        layout,
        max_pixels=limits.max_pixels,
        reduction=jpeg_reduction(rows, columns, size),
        outline=outline,
    )
    orientation, orientation_warnings = stated_orientation(dataset)
    if exchanges_sides(orientation):
        rows, columns = columns, rows
    processing = Processing(
        format="dicom",
        rows=rows,
        columns=columns,
        orientation=orientation,
        transfer_syntax=str(transfer_syntax(dataset.file_meta)),
        inverted=rendering.inverted,
        intensity=rendering.intensity,
    )
    all_warnings = (*warnings, *subject_warnings, *rendering.warnings, *orientation_warnings)
    pixels_HW = upright(rendering.pixels_HW, orientation)
    return Radiograph(pixels_HW, metadata, processing, all_warnings, rendering.reduction)


def _read_image_header(data: bytes, limits: DicomLimits) -> Dataset:
    """Read everything but the pixels; raises as `read_dicom`."""
    meta, end = read_meta(data)
    if text(meta, "MediaStorageSOPClassUID") == DIRECTORY_UID:
        raise NotARadiograph("The file is a DICOM directory, not an image.")
    if limits.in_thread and _is_slow(transfer_syntax(meta)):
        raise NeedsWorker
    return read_header(
        data,
        max_inflated_bytes=limits.max_inflated_bytes,
        meta=(meta, end),
        in_thread=limits.in_thread,
    )


def _is_slow(syntax: UID) -> bool:
    """Tell whether a file of this transfer syntax may take long to decode, or swell while its
    header is read.
    """
    return syntax == DeflatedExplicitVRLittleEndian or (
        syntax in CODECS and CODECS[syntax].in_worker
    )
