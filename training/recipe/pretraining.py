"""A first training on images that are not measured on, from which every fold's network starts."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, kw_only=True, slots=True, config=ConfigDict(extra="forbid"))
class Pretraining:
    """Its schedule, and what it learns beside the finding; off without epochs."""

    epochs: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Epochs at each of its sizes; none leaves pretraining out."""
    sizes: tuple[Annotated[int, Field(ge=32, le=1024)], ...] = ()
    batch: Annotated[int, Field(ge=2, le=4096)] = 24
    lr: Annotated[float, Field(gt=0.0, le=1.0)] = 2e-3
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.995
    positives: Share = 0.28
    """Share of each epoch that shows the finding."""
    findings_weight: Annotated[float, Field(ge=0.0)] = 3.0
    """Weight in the loss of what else a report names."""
    person_weight: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight in the loss of sex, view and age: labels without doubt, from which anatomy is
    learned."""

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        if len(self.epochs) != len(self.sizes):
            raise ValueError("pretraining.epochs and pretraining.sizes differ in length")
        return self
