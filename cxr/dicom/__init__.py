"""DICOM bytes to a radiograph: header, scope, metadata, pixels, in that order."""

from cxr.dicom.header import is_dicom
from cxr.dicom.pydicom_settings import quiet_pydicom
from cxr.dicom.read import DicomLimits, read_dicom

__all__ = ["DicomLimits", "is_dicom", "quiet_pydicom", "read_dicom"]
