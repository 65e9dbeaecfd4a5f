"""Coded concepts of results: SNOMED CT and DICOM where they have one, our own where they have
none.
"""

from pydicom.sr.coding import Code

OWN_SCHEME = "99CXRSERVE"
"""Designator of a private coding scheme (PS3.16 section 8.2)."""

PRESENCE = Code("705057003", "SCT", "Presence")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")
CHEST = Code("816094009", "SCT", "Chest")
PLAIN_CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain chest X-ray")
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
COMMENT = Code("121106", "DCM", "Comment")
DEVICE = Code("121007", "DCM", "Device")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
ENGLISH = Code("en", "RFC5646", "English")
PERCENT = Code("%", "UCUM", "Percent")
THRESHOLD = Code("threshold", OWN_SCHEME, "Smallest positive certainty")

_FINDINGS = {
    "pneumothorax": Code("36118008", "SCT", "Pneumothorax"),
    "pneumonia": Code("233604007", "SCT", "Pneumonia"),
}


def finding_code(finding: str) -> Code:
    """Return the code of a bundle's finding; one that SNOMED's list above lacks is coded as the
    bundle names it.
    """
    # a code value has at most 16 characters (PS3.5 section 6.2, SH), a meaning at most 64
    return _FINDINGS.get(finding, Code(finding[:16], OWN_SCHEME, finding[:64]))
