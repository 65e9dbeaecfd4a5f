"""Run a bundle over labelled images: one decode and one run for each.

Shape suffixes: H and W input rows and columns.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cxr.bundle import Bundle
from cxr.decode_and_preprocess import Prepared
from cxr.graph import Graph
from cxr.interpret import Finding, Outputs, interpret, scope_warnings
from cxr.tta import POLICIES
from training.evaluation.labelled_images import LabelledImage, roles
from training.evaluation.predict import predict
from training.evaluation.prediction import LabelledPrediction, Role


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """An image, the graph's outputs for its views, and the prediction from them."""

    image: LabelledImage
    outputs: Outputs
    prediction: LabelledPrediction


def answers(
    bundle: Bundle, graph: Graph, images: Iterable[LabelledImage], *, tta: bool
) -> Iterator[ImageAnswer]:
    """Answer images in order: the plain view alone, or the bundle's TTA policy."""
    policy = POLICIES[bundle.manifest.tta_policy]
    role_of = roles(bundle)
    views = policy if tta else policy[:1]
    inputs = ((image, image.image_HW) for image in images)
    for image, outputs in predict(graph, inputs, views, lambda image: image.metadata_M):
        role = role_of.get(image.row.sha256, "")
        yield ImageAnswer(image, outputs, _prediction(image, outputs, bundle, role))


def _prediction(
    image: LabelledImage, outputs: Outputs, bundle: Bundle, role: Role
) -> LabelledPrediction:
    finding = interpret(outputs, bundle.manifest)
    row = image.row
    metadata = image.prepared.metadata
    return LabelledPrediction(
        file=row.path,
        person_group=row.person_group,
        label=row.label,
        logit=finding.logit,
        probability=finding.probability,
        image_id=row.image_id,
        sha256=row.sha256,
        role=role,
        plain_logit=float(outputs.logit_N[0]),
        spread=finding.tta.spread if finding.tta else None,
        novelty=finding.novelty.score,
        is_novel=finding.novelty.is_novel,
        age_years=metadata.age_years,
        sex=metadata.sex,
        view_position=metadata.view_position,
        warnings=" ".join(_warning_codes(image.prepared, finding, bundle)),
    )


def _warning_codes(prepared: Prepared, finding: Finding, bundle: Bundle) -> list[str]:
    """Return the codes that the service answers with: each once, in its order."""
    scope = scope_warnings(prepared.metadata, bundle.manifest.scope)
    warnings = (*prepared.warnings, *scope, *finding.warnings)
    return list(dict.fromkeys(warning.code.value for warning in warnings))
