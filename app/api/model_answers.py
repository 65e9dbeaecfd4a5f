"""What is answered about models, and about the service's health."""

from typing import Any, Literal, Self

from pydantic import Field

from app.api.schemas import Answer, ModelIdentity, identity_of
from app.models.execution_plan import ExecutionPlan
from app.models.store import ModelStore, ServedVersion, StoredModel
from app.settings import Settings
from cxr.interpret import Labels, Scope


class VersionAnswer(Answer):
    """One version in the store."""

    version: int
    state: Literal["current", "refused", "superseded"] = Field(
        description="Only the current version answers."
    )
    reason: str | None = Field(
        None, description="Why the version is refused, or the files of the current one are."
    )


class PlanAnswer(Answer):
    """How this process runs the model."""

    lanes: int = Field(description="Batches that run at once.")
    threads: int = Field(description="Threads of one run on the CPU.")
    max_batch: int = Field(description="Most images in one run.")
    ms_per_image: float = Field(
        description="What each image adds to a run, as measured before the first request."
    )
    ms_per_run: float = Field(description="What a run takes besides its images.")
    source: Literal["measured", "remembered"] = Field(
        description="Whether that was measured at this start, or at an earlier one."
    )

    @classmethod
    def write(cls, plan: ExecutionPlan) -> Self:
        """Tell what was chosen."""
        return cls(
            lanes=plan.run_slots, threads=plan.threads, max_batch=plan.max_batch,
            source=plan.source,
            ms_per_image=round(1000 * plan.seconds_per_image, 3),
            ms_per_run=round(1000 * plan.seconds_per_run, 3),
        )  # fmt: skip


class CurrentAnswer(Answer):
    """What is known of the version that answers."""

    identity: ModelIdentity
    plan: PlanAnswer
    finding: str
    labels: Labels
    scope: Scope = Field(description="Whom and what the model was made for.")
    operating_points: dict[str, float] = Field(
        description="Smallest positive probability of a plain image, by name."
    )
    operating_points_tta: dict[str, float] = Field(description="The same with tta=true.")
    default_operating_point: str = Field(
        description="Decides if a request names no operating point."
    )
    tta_policy: str
    training_prevalence: float | None = Field(
        description="Share of positives that probabilities refer to if a request states no "
        "`prevalence`."
    )
    novelty_limit: float
    input_size: int
    intended_use: str
    limits: str
    metrics: dict[str, Any] = Field(
        description="As measured on the exported model, with intervals."
    )

    @classmethod
    def write(cls, version: ServedVersion, settings: Settings) -> Self:
        """Describe the version that answers."""
        manifest = version.manifest
        is_set = settings.operating_point in manifest.operating_points
        return cls(
            identity=identity_of(version),
            plan=PlanAnswer.write(version.plan),
            finding=manifest.finding,
            labels=manifest.labels,
            scope=manifest.scope,
            operating_points=manifest.profile().thresholds,
            operating_points_tta=manifest.profile(tta=True).thresholds,
            default_operating_point=settings.operating_point
            if is_set
            else manifest.default_operating_point,
            tta_policy=manifest.tta_policy,
            training_prevalence=manifest.prevalence,
            novelty_limit=manifest.novelty.novel,
            input_size=manifest.input_size,
            intended_use=manifest.intended_use,
            limits=manifest.limits,
            metrics=manifest.metrics.as_json(),
        )


class ModelAnswer(Answer):
    """One model of the store; `current` is null if no version is good."""

    name: str
    current: CurrentAnswer | None
    versions: list[VersionAnswer]

    @classmethod
    def write(cls, model: StoredModel, settings: Settings) -> Self:
        """Describe a model and all its versions."""
        return cls(
            name=model.name,
            current=CurrentAnswer.write(model.current, settings) if model.current else None,
            versions=[_version(model, version) for version in model.versions],
        )


class ModelsAnswer(Answer):
    """What is served."""

    default: str = Field(description="The model that answers if a request names none.")
    models: list[ModelAnswer]

    @classmethod
    def write(cls, store: ModelStore, settings: Settings) -> Self:
        """Describe all models of the store."""
        return cls(
            default=settings.default_model,
            models=[ModelAnswer.write(model, settings) for model in store.models],
        )


class LivenessAnswer(Answer):
    """The process is sound."""

    status: Literal["alive"] = "alive"


class ReadinessAnswer(Answer):
    """The default model answers."""

    status: Literal["ready"] = "ready"
    notes: list[str] = Field(
        [],
        description="What should be looked at although the service is sound: refused bundles, "
        "and one that takes long to open.",
    )


def _version(model: StoredModel, version: int) -> VersionAnswer:
    why = model.refused.get(version)
    if model.current is not None and model.current.manifest.version == version:
        changed = None if why is None else f"Serves from memory; its files are refused: {why}"
        return VersionAnswer(version=version, state="current", reason=changed)
    return VersionAnswer(
        version=version, state="superseded" if why is None else "refused", reason=why
    )
