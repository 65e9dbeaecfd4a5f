"""A request about one upload, and its meaning for a model."""

from dataclasses import dataclass, field

from app.errors import MalformedRequest
from app.inference.admission import InFlight
from app.models.store import ServedVersion
from cxr.manifest import Manifest
from cxr.prevalence_shift import PrevalenceShift
from cxr.radiograph import Metadata
from cxr.tta import PLAIN, POLICIES, TtaView


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """The options of a request; `stated` are the facts that the sender adds."""

    tta: bool = False
    heatmap: bool = False
    operating_point: str | None = None
    """Names the threshold that decides; None leaves it to the service, and then to the bundle."""
    prevalence: float | None = None
    """Share of positives where the answer is used; None leaves the training data's."""
    stated: Metadata = field(default_factory=Metadata)

    def check(self, manifest: Manifest) -> None:
        """Refuse what the model can't be asked; raises `MalformedRequest`."""
        if self.operating_point not in (None, *manifest.operating_points):
            raise MalformedRequest(
                f"operating_point: must be one of {', '.join(manifest.operating_points)}"
            )
        if self.prevalence is not None and manifest.prevalence is None:
            raise MalformedRequest(
                "prevalence: this model learned from images of one class, so there is nothing to "
                "shift from"
            )

    def views(self, manifest: Manifest) -> tuple[TtaView, ...]:
        """Return the views of the image that the model is to see."""
        return POLICIES[manifest.tta_policy] if self.tta else (PLAIN,)

    def shift(self, manifest: Manifest) -> PrevalenceShift | None:
        """Return the way from the model's prevalence to the one that was asked for, if any was."""
        training = manifest.prevalence
        if training is None or self.prevalence is None:
            return None
        return PrevalenceShift(training, self.prevalence)


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request that was admitted, and the version that answers it."""

    version: ServedVersion
    request: PredictionRequest
    views: tuple[TtaView, ...]
    deadline: float
    """On `time.monotonic`'s clock."""
    upload: InFlight
    sender: str
    """Who takes turns with other senders, where files wait for a process."""
