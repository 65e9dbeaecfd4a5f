"""From the bytes of an upload to a radiograph: sniff the format, enforce the limits, dispatch."""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from cxr import dicom
from cxr.errors import EmptyFile, TooLarge, UnsupportedFormat
from cxr.radiograph import Format, Processing, Radiograph
from cxr.raster import JPEG_MAGIC, PNG_MAGIC, read_jpeg, read_png
from cxr.warning_codes import ImageWarning, WarningCode

ScopePolicy = Literal["refuse", "warn"]

USUAL_ASPECT = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one upload may cost."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000
    max_inflated_bytes: int = 128 * 2**20


def sniff(data: bytes) -> Format:
    """Tell the format by its first bytes, never by a name.

    Raises:
        EmptyFile: there are no bytes.
        UnsupportedFormat: it is none of the formats.
    """
    if not data:
        raise EmptyFile
    if dicom.is_dicom(
        data
    ):  # first, for DICOM leaves its preamble to other formats' headers (PS3.10 section 7.1)
        return "dicom"
    if data.startswith(PNG_MAGIC):
        return "png"
    if data.startswith(JPEG_MAGIC):
        return "jpeg"
    raise UnsupportedFormat("The file is neither DICOM (with its preamble), PNG nor JPEG.")


def decode(
    data: bytes,
    *,
    limits: DecodeLimits,
    size: int | None = None,
    scope: ScopePolicy = "refuse",
    can_be_stopped: bool = True,
) -> Radiograph:
    """Decode one upload whole.

    Args:
        data: the upload.
        limits: bounds that hold before memory is taken.
        size: side of the model's input. A JPEG decoder averages by a power of two as far as
            `preprocess` would; None decodes every pixel.
        scope: refuse another body part or a lateral view, or only warn.
        can_be_stopped: whether the caller is a process that may be killed over a slow file.

    Raises:
        ImageError: any of its kinds; the message is for the sender.
        NeedsWorker: only if the caller can't be stopped.
    """
    if len(data) > limits.max_bytes:
        raise TooLarge(f"The file has more than {limits.max_bytes} bytes.")
    radiograph = _read(data, limits, size, scope, in_thread=not can_be_stopped)
    return replace(
        radiograph, warnings=(*radiograph.warnings, *_size_warnings(radiograph.processing, size))
    )


def quiet_libraries() -> None:
    """Silence the decoders' own loggers and warnings, which might quote the file.

    Called once by each process that decodes.
    """
    dicom.quiet_pydicom()
    logging.getLogger("PIL").setLevel(
        logging.CRITICAL
    )  # at debug level it writes out EXIF and text chunks
    warnings.filterwarnings("ignore", module=r"(PIL|pydicom|cxr)\b")


def _read(
    data: bytes, limits: DecodeLimits, size: int | None, scope: ScopePolicy, *, in_thread: bool
) -> Radiograph:
    format_ = sniff(data)
    if format_ == "dicom":
        bounds = dicom.DicomLimits(limits.max_pixels, limits.max_inflated_bytes, in_thread)
        return dicom.read_dicom(data, limits=bounds, size=size, refuse_scope=scope == "refuse")
    if format_ == "png":
        return read_png(data, max_pixels=limits.max_pixels, in_thread=in_thread)
    return read_jpeg(data, max_pixels=limits.max_pixels, size=size, in_thread=in_thread)


def _size_warnings(processing: Processing, size: int | None) -> Iterator[ImageWarning]:
    if not USUAL_ASPECT[0] <= processing.columns / processing.rows <= USUAL_ASPECT[1]:
        yield ImageWarning(
            WarningCode.ASPECT_UNUSUAL, "One side is more than twice as long as the other."
        )
    if size is not None and min(processing.rows, processing.columns) < size:
        yield ImageWarning(
            WarningCode.LOW_RESOLUTION,
            f"A side has fewer pixels than the {size} that the model reads.",
        )
