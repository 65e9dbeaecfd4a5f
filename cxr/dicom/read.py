"""One DICOM upload from bytes to a radiograph."""

from dataclasses import dataclass

from pydicom.uid import DeflatedExplicitVRLittleEndian

from cxr.dicom.codecs import codec_of
from cxr.dicom.header import read_header, read_image_size, read_meta, text, transfer_syntax
from cxr.dicom.metadata import read_metadata
from cxr.dicom.pixels import render
from cxr.dicom.scope import check_image, check_subject, whole_number
from cxr.errors import ImageError, NotARadiograph
from cxr.radiograph import Processing, Radiograph
from cxr.size import jpeg_reduction

DIRECTORY_UID = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class DicomLimits:
    """Bounds on one file: pixels by header and by codestream, bytes after inflating."""

    max_pixels: int
    max_inflated_bytes: int


def needs_worker(data: bytes, *, max_pixels: int) -> bool:
    """Tell whether decoding must run where it can be stopped; False where it will be refused anyway.

    That is so for slow codecs, for what must be inflated, and for compressed images of more than `max_pixels`.
    """
    try:
        syntax = transfer_syntax(read_meta(data)[0])
        codec = codec_of(syntax)
        if codec.in_worker or syntax == DeflatedExplicitVRLittleEndian:
            return True
        if codec.name == "native":
            return False
        size = read_image_size(data)
        return whole_number(size, "Rows") * whole_number(size, "Columns") > max_pixels
    except ImageError:
        return False


def read_dicom(data: bytes, *, limits: DicomLimits, size: int | None, refuse_scope: bool) -> Radiograph:
    """Read a DICOM radiograph: header, then scope, then pixels.

    Args:
        data: the file, with its preamble.
        limits: bounds that hold before memory is taken.
        size: side of the model's input, as far as which a JPEG may be averaged while decoding.
        refuse_scope: refuse another body part or a lateral view; else warn.

    Raises:
        ImageError: any of its kinds.
    """
    meta, _ = read_meta(data)
    if text(meta, "MediaStorageSOPClassUID") == DIRECTORY_UID:
        raise NotARadiograph("The file is a DICOM directory, not an image.")
    dataset = read_header(data, max_inflated_bytes=limits.max_inflated_bytes)
    check_image(dataset, max_pixels=limits.max_pixels)
    metadata, cautions = read_metadata(dataset)
    subject_cautions = tuple(check_subject(dataset, metadata.view_position, refuse=refuse_scope))
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    rendering = render(dataset, max_pixels=limits.max_pixels, reduction=jpeg_reduction(rows, columns, size))
    processing = Processing(
        format="dicom",
        rows=rows,
        columns=columns,
        transfer_syntax=str(transfer_syntax(meta)),
        inverted=rendering.inverted,
        intensity=rendering.intensity,
    )
    all_cautions = (*cautions, *subject_cautions, *rendering.cautions)
    return Radiograph(rendering.pixels_HW, metadata, processing, all_cautions, rendering.reduction)
