"""The recipe: every choice of a training in one frozen, range-checked object.

A recipe comes from a named function in `training.recipe.catalogue`; a user changes single fields of
it with `--set key=value` (`training.recipe.override`).  The resolved
recipe stands in a run directory's run.json and in the bundle that is exported from it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from cxr.interpret import Labels, Scope
from training.errors import TrainingError
from training.recipe.pretraining import Pretraining

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Size = Annotated[int, Field(ge=32, le=1024)]
"""Pixels on a side."""
IMAGENET = "imagenet"
"""As `init_weights`: those that a package carries, or that MONAI fetches."""
Slug = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,63}$")]

NetworkName = Literal[
    "efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3",
    "efficientnet-b4", "efficientnet-b5", "efficientnet-b6", "efficientnet-b7",
    "efficientnet-lite0",
    "densenet-121", "densenet-161", "densenet-169", "densenet-201",
    "resnet-tiny", "resnet-small", "resnet-medium", "resnet-50",
    "pyramid-small", "pyramid-medium", "pyramid-large", "pyramid-lite0",
    "eva-x-tiny",
]  # fmt: skip
_SMALL_RESNETS: tuple[NetworkName, ...] = ("resnet-tiny", "resnet-small", "resnet-medium")
IntensityNormalisation = Literal["fixed", "image", "high-pass"]
MemberNormalisations = Annotated[
    tuple[IntensityNormalisation, ...], Field(min_length=1, max_length=32)
]
Pool = Literal["mean", "lse"]
EnsemblePart = Literal["both", "whether", "where"]
Imbalance = Literal["sampler", "class-weights", "generated"]
Layout = Literal["siim", "class-folders", "labels", "any"]
Validation = Literal["holdout", "folds"]
TrainingPrecision = Literal["auto", "fp32", "bf16"]

_CLOSED = ConfigDict(extra="forbid")


class RecipeError(TrainingError):
    """A recipe or an override of it makes no sense; the message is for the person at the
    keyboard.
    """


@dataclass(frozen=True, kw_only=True, slots=True, config=_CLOSED)
class Augmentation:
    """Strengths of the augmentation; zero everywhere leaves images unchanged."""

    mirror: Fraction = 0.5
    """Probability of a flip left to right."""
    rotate_degrees: Annotated[float, Field(ge=0.0, le=45.0)] = 10.0
    """Rotation, uniform in +-."""
    shift: Annotated[float, Field(ge=0.0, le=0.5)] = 0.08
    """Shift, uniform in +-, as a fraction of the side."""
    scale: Annotated[float, Field(ge=0.0, le=0.9)] = 0.15
    """Zoom, log-uniform in exp(+-); a quarter of it is drawn separately for each side."""
    gamma: Annotated[float, Field(ge=0.0, le=2.0)] = 0.5
    """Exponent on grey values, log-uniform in exp(+-)."""
    contrast: Annotated[float, Field(ge=0.0, le=2.0)] = 0.4
    """Gain about the image's mean, log-uniform in exp(+-)."""
    brightness: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Offset, uniform in +-, of a 0..1 grey scale."""
    blur: Fraction = 0.2
    """Share of images that are smoothed (3 x 3 binomial)."""
    noise: Annotated[float, Field(ge=0.0, le=0.5)] = 0.04
    """Largest standard deviation of added Gaussian noise, of a 0..1 grey scale; each image draws
    its own below it."""
    mixup: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Alpha of the Beta distribution that mixes pairs of images (Zhang et al. 2018); 0 is off."""
    mixup_until: Fraction = 0.8
    """Share of the epochs after which mixing stops, so that the network ends on whole images."""


@dataclass(frozen=True, kw_only=True, slots=True, config=_CLOSED)
class EnsembleMember:
    """The networks of one run directory among those that `training join` put side by side."""

    network: NetworkName
    normalisation: MemberNormalisations
    size: Size
    part: EnsemblePart = "both"
    """`whether`: it decides, and its map is left out; `where`: it draws the map, and its logit is
    left out.
    """

    @property
    def cells(self) -> int:
        """Rows and columns of its map."""
        return self.size // stride_of(self.network)


@dataclass(frozen=True, kw_only=True, slots=True, config=_CLOSED)
class Recipe:
    """Everything that decides how a run directory comes out, besides its data."""

    # What it is
    name: Slug
    task: Slug
    finding: str
    labels: Labels
    scope: Scope
    intended_use: str
    limits: str
    data_layout: Layout
    """The layout that one of `--data` must have."""
    data_name: str
    """What the data is called in the bundle."""
    data_licence: str
    tta_policy: str = "mirror"

    # Network
    network: NetworkName = "efficientnet-b0"
    normalisation: MemberNormalisations = ("fixed",)
    """Intensity normalisation of each network. With several, one network is trained for each, and
    the graph answers with their mean.

    `fixed`: none; `image`: by the image's mean and standard deviation; `high-pass`: after
    subtracting the local mean.
    """
    init_weights: str | None = None
    """Initial weights of the backbone: a run directory's model.safetensors, a state dict with the
    names of torchvision, torchxrayvision or EVA-X (.safetensors, .pth or .pt), or `imagenet`; see
    `training.model.pretrained`. None starts from scratch; the head is always new.
    """
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    pool: Pool = "mean"
    """How the map adds up to the logit.  `lse` (log of the mean exponential) lets a few cells
    decide, as small lesions need."""
    mask_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the map's loss against segmentation masks; the label's loss has weight 1. 0 learns
    from labels alone.
    """
    metadata: bool = False
    """Whether age, sex and view add to the logit (`training.fit.late_fusion`). Compare with images
    alone before shipping.
    """

    joined: tuple[EnsembleMember, ...] = ()
    """The networks of an ensemble (`training.experiments.ensemble`); empty for a trained run
    directory. In an ensemble, network, normalisation and schedule are those of the member with the
    largest input. Each member's own recipe is in run.json.
    """

    # Schedule: progressive resizing trains epochs[i] epochs at sizes[i]
    epochs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)]
    batch: Annotated[int, Field(ge=2, le=4096)] = 32
    lr: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 1.0
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.998
    """Decay of the running average of weights, which is what is kept; it warms up, and 0 switches
    it off."""
    average_last: Annotated[int, Field(ge=1)] = 1
    """What is kept is the plain mean of the running averages after so many last epochs."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.05

    # Data
    imbalance: Imbalance = "sampler"
    """`sampler`: each epoch draws as many of either class; `class-weights`: 1 - n_c / N on the
    loss; `generated`: changed copies of the rarer class's training images, written to disk until
    the classes balance."""
    positives: Fraction = 0.5
    """Share of an epoch that `sampler` draws from the positive images."""
    augment: Augmentation = Field(default_factory=Augmentation)
    pretraining: Pretraining = Field(default_factory=Pretraining)
    """A first training on images that are not measured on (`--measure-on`)."""
    companions: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0
    """Share of each epoch that is drawn from images that are not measured on."""
    doubtful_targets: tuple[Fraction, Fraction] = (0.04, 0.7)
    """How likely the finding is if a report does not name it, and if it does; for labels that were
    read out of reports."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Decides the folds; None takes `seed`, so that another seed is another split too."""
    validation: Validation = "folds"
    """`holdout`: fold 0 is held-out from the one model; `folds`: a model for each fold, and a final
    one on everything."""

    # Machine
    precision: TrainingPrecision = "auto"
    """Precision of the forward pass in training. `auto` is bf16 if it is faster: on a GPU, and for
    DenseNets and pyramids on a CPU with bf16 instructions.
    """
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 takes the cores that this process may use.  Another number may change the last
    bits of the weights."""

    @property
    def size(self) -> int:
        """Rows and columns of the final input, in pixels: what the exported graph reads."""
        return self.sizes[-1]

    @property
    def stride(self) -> int:
        """Pixels on a side for one cell of the map."""
        return stride_of(self.network)

    @property
    def size_step(self) -> int:
        """What sizes are multiples of: small ResNets halve an image three times, EVA-X has patches
        of 16 pixels, the others halve five times.
        """
        return 32 if self.network.startswith("pyramid") else self.stride

    @property
    def total_epochs(self) -> int:
        """Epochs over all sizes."""
        return sum(self.epochs)

    def size_of_epoch(self, epoch: int) -> int:
        """Return the image size that an epoch (from 0) trains at."""
        for epochs, size in zip(self.epochs, self.sizes, strict=True):
            if epoch < epochs:
                return size
            epoch -= epochs
        raise IndexError("epoch lies after the last one")

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        if len(self.epochs) != len(self.sizes):
            raise ValueError(
                "epochs and sizes differ in length: each size needs its number of epochs"
            )
        if list(self.sizes) != sorted(self.sizes):
            raise ValueError("sizes must not shrink")
        if any(size % self.size_step for size in self.sizes):
            raise ValueError(
                f"sizes must be multiples of {self.size_step} for {self.network}: every half must "
                f"be whole"
            )
        if self.warmup_epochs > self.total_epochs:
            raise ValueError("warmup_epochs exceeds the epochs")
        if self.average_last > self.epochs[-1]:
            raise ValueError("average_last exceeds the epochs at the last size")
        if self.mask_weight and self.augment.mixup:
            raise ValueError(
                "the segmentation mask of two blended chests means nothing: set mask_weight or "
                "augment.mixup to 0"
            )
        if self.mask_weight and self.imbalance == "generated":
            raise ValueError(
                "generated images have no segmentation masks: set mask_weight to 0, or imbalance "
                "to sampler"
            )
        if self.metadata and (
            self.augment.mixup or self.imbalance == "generated" or len(self.normalisation) > 1
        ):
            raise ValueError(
                "metadata goes with whole images that somebody took, and one network: no mixup, "
                "nothing generated"
            )
        return self


def stride_of(network: NetworkName) -> int:
    """Return how many pixels on a side one cell of a network's map stands for."""
    if network == "eva-x-tiny":
        return 16
    return 8 if network in _SMALL_RESNETS or network.startswith("pyramid") else 32


_RECIPE = TypeAdapter(Recipe)


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain JSON values."""
    plain: dict[str, Any] = _RECIPE.dump_python(recipe, mode="json")
    return plain


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Read a recipe from plain JSON values; raises `RecipeError`."""
    try:
        return _RECIPE.validate_python(values)
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}"
            for fault in exc.errors()
        )
        raise RecipeError(faults) from exc
