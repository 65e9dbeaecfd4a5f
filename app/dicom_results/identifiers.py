"""Unique identifiers of results, made from what a result says.

A sender that repeats a request, because the answer was lost, gets an object with the same
identifiers. So an archive keeps one result and not two.
Another image, model, version, operating point or prevalence gives other ones.
"""

from uuid import UUID, uuid5

from app.dicom_results.source import SourceImage
from app.inference.prediction import Prediction

_NAMESPACE = UUID("6e2b6f0c-5a5e-4c0e-9d0a-3f1b7f0f6c61")
_LAYOUT = "1"
"""Counts up when the same answer is written in another way."""


def make_uid(*parts: str) -> str:
    """Make a UID under the root of UUIDs (PS3.5 B.2); the same parts give the same one."""
    return f"2.25.{uuid5(_NAMESPACE, chr(0).join((_LAYOUT, *parts))).int}"


def series_uid(source: SourceImage, prediction: Prediction, kind: str) -> str:
    """Name the series: one for each study, model and kind of result."""
    return make_uid("series", kind, source.study_uid, prediction.version.bundle.sha256)


def instance_uid(source: SourceImage, prediction: Prediction, kind: str) -> str:
    """Name the object by the image, the model, and how it was asked.

    Not by the probability: the same image in another batch may differ in its last digits.
    """
    finding = prediction.finding
    views = finding.tta.views if finding.tta else 1
    asked = (
        finding.operating_point,
        repr(finding.threshold),
        str(views),
        *(warning.code for warning in prediction.warnings),
    )
    return make_uid("instance", kind, source.instance_uid, prediction.version.bundle.sha256, *asked)


def device_uid(prediction: Prediction) -> str:
    """Name the algorithm: its graph file."""
    return make_uid("device", prediction.version.bundle.sha256)


def tracking_uid(source: SourceImage, prediction: Prediction) -> str:
    """Name what is observed: this finding on this image, whatever the options."""
    return make_uid("tracking", source.instance_uid, prediction.version.manifest.finding)
