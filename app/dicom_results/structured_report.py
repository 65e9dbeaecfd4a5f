"""A prediction as a structured report: Comprehensive 3D SR by TID 1500 (PS3.16)."""

from collections.abc import Iterator
from io import BytesIO

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)

from app.dicom_results import terms
from app.dicom_results.equipment import MANUFACTURER, equipment, parameters, put_identity, remarks
from app.dicom_results.identifiers import device_uid, instance_uid, series_uid, tracking_uid
from app.dicom_results.source import SourceImage
from app.inference.prediction import Prediction

SERIES_NUMBER = 9001
"""High, so that results stand behind the study's own series."""


def write_report(source: SourceImage, prediction: Prediction) -> bytes:
    """Write the report: complete, but preliminary and verified by nobody.

    highdicom would copy the whole tree of content, read the copy back, and search it twice for
    images that the evidence lacks: half of the time.  It gets the bare root, and the tree is hung
    into the finished report; its one image and the evidence are both `source`.
    """
    root = _content(source, prediction)[0]
    tree, root.ContentSequence = root.ContentSequence, []
    report = Comprehensive3DSR(
        evidence=[source.as_evidence()],
        content=root,
        series_instance_uid=series_uid(source, prediction, "sr"),
        series_number=SERIES_NUMBER,
        series_description=f"{prediction.version.manifest.finding[:32]} by {MANUFACTURER}, "
        f"preliminary",
        sop_instance_uid=instance_uid(source, prediction, "sr"),
        instance_number=source.instance_number,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(terms.OWN_SCHEME, name=f"Concepts of {MANUFACTURER}")
        ],
        **equipment(prediction),
    )
    report.ContentSequence = tree
    put_identity(report, source)
    buffer = BytesIO()
    report.save_as(buffer)
    return buffer.getvalue()


def _content(source: SourceImage, prediction: Prediction) -> MeasurementReport:
    observer = ObserverContext(
        CodedConcept.from_code(terms.DEVICE),
        DeviceObserverIdentifyingAttributes(
            uid=device_uid(prediction),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=prediction.version.manifest.model,
            serial_number=prediction.version.bundle.sha256,
        ),
    )
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=terms.PLAIN_CHEST_RADIOGRAPHY,
        imaging_measurements=[_measurements(source, prediction)],
        title=terms.IMAGING_MEASUREMENT_REPORT,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept.from_code(terms.ENGLISH)
        ),
    )


def _measurements(
    source: SourceImage, prediction: Prediction
) -> MeasurementsAndQualitativeEvaluations:
    """Write the one group of the report: certainty, threshold, presence, and the image they are
    about.
    """
    manifest, finding = prediction.version.manifest, prediction.finding
    is_positive = finding.label == manifest.labels.positive
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(tracking_uid(source, prediction), manifest.finding),
        finding_type=terms.finding_code(manifest.finding),
        finding_sites=[FindingSite(terms.CHEST)],
        algorithm_id=AlgorithmIdentification(
            name=f"{MANUFACTURER} {manifest.model}",
            version=str(manifest.version),
            family=terms.ARTIFICIAL_INTELLIGENCE,
            parameters=list(parameters(prediction)),
        ),
        measurements=[
            Measurement(terms.CERTAINTY, 100 * finding.probability, terms.PERCENT),
            Measurement(terms.THRESHOLD, 100 * finding.threshold, terms.PERCENT),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(terms.PRESENCE, terms.PRESENT if is_positive else terms.ABSENT),
        ],
        source_images=[SourceImageForMeasurementGroup(source.class_uid, source.instance_uid)],
    )
    group[0].ContentSequence.extend(_comments(prediction))
    return group


def _comments(prediction: Prediction) -> Iterator[TextContentItem]:
    """Add remarks to the group, which TID 1501 leaves open to additions."""
    for remark in remarks(prediction):
        yield TextContentItem(terms.COMMENT, remark, RelationshipTypeValues.CONTAINS)
