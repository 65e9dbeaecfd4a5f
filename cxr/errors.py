"""What can be wrong with an upload or a bundle.

    CxrError
    ├── ImageError            an upload that gets no answer; `code` is its public name
    │   ├── EmptyFile             malformed_request
    │   ├── UnsupportedFormat     unsupported_format
    │   ├── TooLarge              too_large
    │   ├── CorruptImage          corrupt_image
    │   ├── NotARadiograph        not_a_radiograph
    │   ├── NotAChest             not_a_chest
    │   ├── NotFrontal            not_frontal
    │   └── DecodeLimit           decode_limit
    ├── NeedsWorker           decoding the upload may take long; only a process that can be stopped
                              may try
    ├── BundleError           a bundle that can't be served; the message says why
    └── GraphError            the graph failed on a batch

Messages go to the sender and to logs, so they never hold a tag's value, a
pixel, a file name or anything else of the patient.
"""

from typing import ClassVar


class CxrError(Exception):
    """Base of every error that this package raises on purpose."""


class ImageError(CxrError):
    """The upload can't be answered; the message tells the sender why."""

    code: ClassVar[str] = "image_error"


class EmptyFile(ImageError):
    """The file has no bytes, so there is nothing of which to tell the format."""

    code = "malformed_request"

    def __init__(self, detail: str = "The file is empty.") -> None:
        super().__init__(detail)


class UnsupportedFormat(ImageError):
    """Neither DICOM, PNG nor JPEG, or a transfer syntax that can't be read."""

    code = "unsupported_format"


class TooLarge(ImageError):
    """More bytes or pixels than the limits allow, before or after inflating."""

    code = "too_large"


class CorruptImage(ImageError):
    """Says what it is, and can't be decoded whole."""

    code = "corrupt_image"


class NotARadiograph(ImageError):
    """No image, several frames, too small, or another modality."""

    code = "not_a_radiograph"


class NotAChest(ImageError):
    """The header names another body part."""

    code = "not_a_chest"


class NotFrontal(ImageError):
    """The header says that this is a lateral view."""

    code = "not_frontal"


class DecodeLimit(ImageError):
    """Decoding went over its time or memory and was stopped."""

    code = "decode_limit"


class NeedsWorker(CxrError):
    """Decoding this upload may take long or much memory, and whoever asked can't be stopped;
    nothing was decoded.
    """

    def __init__(self, seconds: float | None = None) -> None:
        """Take how long decoding may take by the headers, None if they were not read so far."""
        super().__init__("only a process that can be stopped may decode this")
        self.seconds = seconds


class BundleError(CxrError):
    """A model bundle is incomplete, altered, or answers its golden inputs wrongly."""


class GraphError(CxrError):
    """The graph could not run a batch."""
