"""The schema of what a bundle says of its data and errors, as CLAIM 2024 and TRIPOD+AI ask.

CLAIM: Tejani et al. 2024 (10.1148/ryai.240300); TRIPOD+AI: Collins et al. 2024
(10.1136/bmj-2023-078378). What nobody has stated is None, and never guessed.
"""

from typing import Annotated

from pydantic import Field

from cxr.interpret import ClosedModel

Statement = Annotated[str, Field(min_length=1, max_length=2000)] | None


class DataStatement(ClosedModel):
    """What people know of the images and their labels, and no file tells."""

    setting: Statement = None
    """Where, when and in what care the images were taken; looking back, or planned for the
    study."""
    eligibility: Statement = None
    """Who was included and who was left out."""
    acquisition: Statement = None
    """Devices, protocol, and what was done to the images before they came here."""
    deidentification: Statement = None
    reference_standard: Statement = None
    """What a label is, and who gave it."""
    reference_variability: Statement = None
    """How well several readers agree."""
    treatment: Statement = None
    """Whether it is known who was treated already, such as by a chest drain."""
    sample_size: Statement = None
    """How the number of images came about."""
    external_evidence: Statement = None
    """What others found when such models met another hospital's images."""
    registration_and_funding: Statement = None


class PartitionFigures(ClosedModel):
    """Who is in one fold, or in no fold because the images are only learned from."""

    name: str
    images: int
    positives: int
    persons: int
    age_quartiles: tuple[float, float, float] | None
    """Years; None if no age is known."""
    age_unknown: int
    female: int
    male: int
    sex_unknown: int
    anteroposterior: int
    posteroanterior: int
    view_unknown: int


class ErrorGroup(ClosedModel):
    """Errors of one group at the default operating point, on held-out images."""

    name: str
    images: int
    positives: int
    false_negatives: int
    false_positives: int


class SurestError(ClosedModel):
    """A wrong answer of which the model was surest; `image` is an id of splits.csv."""

    image: str
    label: int
    probability: float


class Study(ClosedModel):
    """Partitions, exclusions and errors as measured, and what was stated of the data."""

    statement: DataStatement
    partitions: tuple[PartitionFigures, ...]
    unreadable: int
    """Images that could not be read, and took no part."""
    without_file: int
    """Images that a table lists, and that were not there."""
    errors: tuple[ErrorGroup, ...]
    surest_errors: tuple[SurestError, ...]
