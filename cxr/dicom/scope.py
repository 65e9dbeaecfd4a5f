"""Refuse other body parts and views than a frontal chest, from the header, before decoding."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from cxr.dicom.header import element, items, text, whole_number, words
from cxr.dicom.terms import folded, names_chest
from cxr.dicom.values import possible_words
from cxr.errors import CorruptImage, NotAChest, NotARadiograph, NotFrontal
from cxr.image_size import check_size
from cxr.radiograph import View
from cxr.warning_codes import ImageWarning, WarningCode

RADIOGRAPHIC = frozenset({"CR", "DX", "RG"})
TOLERATED = frozenset({"OT", "SC", "", "DR", "XR", "RX"})
"""Modalities of secondary captures, which may be radiographs, and names for DX that are no defined
terms; they pass with a warning."""

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
BITS_ALLOCATED = (8, 16)
FOR_PROCESSING = "FOR PROCESSING"
DX_FOR_PROCESSING_UID = "1.2.840.10008.5.1.4.1.1.1.1.1"

UNSTATED = frozenset({"", "UNKNOWN", "OTHER", "UNDEFINED", "UNSPECIFIED", "NONE", "NA", "N/A"})

OTHER_BODY_PARTS = frozenset((
    "ABDOMEN", "ANKLE", "ARM", "BREAST", "CALCANEUS", "CLAVICLE", "COCCYX", "CSPINE", "CTSPINE",
    "ELBOW", "EXTREMITY", "FACE", "FEMUR", "FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HIP",
    "HUMERUS", "JAW", "KNEE", "LEG", "LOWERLEG", "LSPINE", "LSSPINE", "MANDIBLE", "NECK",
    "PATELLA", "PELVIS", "SCAPULA", "SHOULDER", "SKULL", "SPINE", "SSPINE", "TARSAL", "THIGH",
    "TIBIAFIBULA", "TLSPINE", "TMJ", "TOE", "TSPINE", "ULNA", "UPPERARM", "WHOLEBODY", "WRIST",
    "ZYGOMA",
))  # fmt: skip
"""Defined terms of other body parts (PS3.16 Annex L), which no code sequence overrules."""

CHEST_CODES = frozenset(
    {"51185008", "T-D3000", "816094009", "39607008", "T-28000", "43799004", "T-D3050"}
)
"""Chest, lung and thoracic cavity in AnatomicRegionSequence (PS3.16 CID 4031), new and old
codes."""


def check_image(dataset: Dataset, *, max_pixels: int) -> None:
    """Refuse what is no single-frame plain radiograph of a sensible size.

    Raises:
        NotARadiograph: another modality, no pixels, several frames, too small.
        TooLarge: more pixels than the limit.
        CorruptImage: the number of frames, rows or columns is no number.
    """
    modality = text(dataset, "Modality").upper()
    if modality not in RADIOGRAPHIC | TOLERATED:
        raise NotARadiograph("The file's modality is not plain radiography (CR, DX or RG).")
    if all(element(dataset, keyword) is None for keyword in PIXEL_KEYWORDS):
        raise NotARadiograph("The DICOM file holds no image.")
    is_whole = element(dataset, "PixelData") is not None
    if not is_whole or whole_number(dataset, "BitsAllocated") not in BITS_ALLOCATED:
        raise NotARadiograph("The image has neither 8 nor 16 bits a sample.")
    intent = text(dataset, "PresentationIntentType").upper()
    if intent == FOR_PROCESSING or text(dataset, "SOPClassUID") == DX_FOR_PROCESSING_UID:
        raise NotARadiograph(
            "The image is raw detector data (for processing); send the one for presentation."
        )
    if whole_number(dataset, "NumberOfFrames", default=1) not in (
        0,
        1,
    ):  # 0 is written by mistake if there is one
        raise NotARadiograph("The file holds several frames; one radiograph is expected.")
    if whole_number(dataset, "SamplesPerPixel", default=1) not in (1, 3):
        raise CorruptImage("The image has neither one nor three samples a pixel.")
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    check_size(rows, columns, max_pixels=max_pixels)


def check_subject(dataset: Dataset, view: View | None, *, refuse: bool) -> Iterator[ImageWarning]:
    """Check body part and view; refuse, or warn if the service is set to warn.

    Raises:
        NotAChest, NotFrontal: only if `refuse` is set.
    """
    if text(dataset, "Modality").upper() in TOLERATED:
        yield ImageWarning(
            WarningCode.MODALITY_UNUSUAL,
            "The file does not say that it is a plain radiograph (CR, DX or RG).",
        )
    body_parts = [folded(part) for part in possible_words(dataset, "BodyPartExamined")]
    is_chest = any(map(names_chest, body_parts)) or (
        body_parts[0] not in OTHER_BODY_PARTS and _is_coded_chest(dataset)
    )
    if not is_chest and body_parts[0] in UNSTATED:
        yield ImageWarning(
            WarningCode.BODY_PART_UNSTATED, "The file does not say which body part it shows."
        )
    elif not is_chest:
        if refuse:
            raise NotAChest("The file says that it shows another body part than the chest.")
        yield ImageWarning(
            WarningCode.NOT_A_CHEST, "The file says that it shows another body part than the chest."
        )
    if view == "LATERAL":
        if refuse:
            raise NotFrontal("The file says that it is a lateral view; a frontal one is expected.")
        yield ImageWarning(
            WarningCode.NOT_FRONTAL,
            "The file says that it is a lateral view; the model reads frontal ones.",
        )


def _is_coded_chest(dataset: Dataset) -> bool:
    """Tell whether AnatomicRegionSequence, which stands for BodyPartExamined in DX, says chest."""
    try:
        regions = items(dataset, "AnatomicRegionSequence")
    except CorruptImage:
        return False
    return any(
        text(region, "CodeValue") in CHEST_CODES
        or names_chest(folded(words(region, "CodeMeaning")))
        for region in regions
    )
