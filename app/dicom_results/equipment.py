"""The equipment that a result names, the same in every kind of object."""

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

from app.dicom_results.source import SourceImage
from app.inference.prediction import Prediction

MANUFACTURER = "cxr-serve"
CAVEAT = "NOT FOR DIAGNOSIS"
_UTF_8 = "ISO_IR 192"


def equipment(prediction: Prediction) -> dict[str, Any]:
    """Return what highdicom asks of the equipment: the model is the device, its hash the serial
    number.
    """
    manifest = prediction.version.manifest
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": manifest.model,
        "software_versions": f"{manifest.model} {manifest.version}",
        "device_serial_number": prediction.version.bundle.sha256,
    }


def parameters(prediction: Prediction) -> Iterator[str]:
    """List what else decided the answer, each as `name=value`."""
    version, finding = prediction.version, prediction.finding
    yield f"sha256={version.bundle.sha256}"
    yield f"operating_point={finding.operating_point}"
    yield f"threshold={finding.threshold!r}"
    yield f"tta_views={finding.tta.views if finding.tta else 1}"
    if finding.tta:
        yield f"tta_spread={finding.tta.spread!r}"
    if finding.prevalence is not None:
        yield f"prevalence={finding.prevalence!r}"
    yield f"preprocess={version.manifest.preprocess.version}"
    yield f"engine={version.graph.engine}/{version.graph.precision}"


def remarks(prediction: Prediction) -> Iterator[str]:
    """Say what a reader must know: the caveat first, then every warning of the answer."""
    yield f"{CAVEAT}. Research use only; not reviewed by a physician."
    for warning in prediction.warnings:
        yield f"{warning.code}: {warning.detail}"


def put_identity(result: Dataset, source: SourceImage) -> None:
    """Write the patient's and the study's attributes into a finished object, in UTF-8.

    They are written last, past highdicom: it would refuse or log values that are
    merely unusual, such as a name without a family name.
    """
    result.SpecificCharacterSet = _UTF_8
    for element in source.identity:
        result[element.tag] = element
