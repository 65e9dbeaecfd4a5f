"""The recipes: named functions, each returning one."""

from collections.abc import Callable
from dataclasses import replace

from cxr.interpret import Labels, Scope
from training.recipe.pretraining import Pretraining
from training.recipe.schema import Augmentation, Recipe, RecipeError

_NOT_A_DEVICE = (
    "Research and teaching. Not a medical device: nothing that it says may be used "
    "to diagnose or to treat anybody."
)


def pneumonia_efficientnet_b0() -> Recipe:
    """Pneumonia in children's radiographs; 5 216 images take about half an hour on two cores."""
    return Recipe(
        name="pneumonia-efficientnet-b0",
        task="pneumonia",
        data_layout="class-folders",
        data_name="Kermany et al. 2018, training split: chest radiographs of children of 1 to 5 "
        "years, Guangzhou",
        data_licence="CC BY 4.0, attribution to Kermany, Zhang and Goldbaum "
        "(doi:10.17632/rscbjbr9sj)",
        finding="pneumonia",
        labels=Labels(negative="normal", positive="pneumonia"),
        scope=Scope(min_age_years=1, max_age_years=5, modalities=("CR", "DX")),
        intended_use=_NOT_A_DEVICE,
        limits=(
            "Learned from one hospital's children of 1 to 5 years, in 8-bit JPEG already squeezed "
            "to 224 x 224 pixels. "
            "Normal and pneumonia only: every other disease will be called one of the two. "
            "Adults, other hospitals and "
            "other devices are untested, and accuracy elsewhere is known to be lower than on a "
            "held-out part of this data."
        ),
        epochs=(8, 2),
        sizes=(128, 224),
        lr=1.5e-3,
        ema=0.99,
        augment=Augmentation(mixup=0.2),
        validation="holdout",
    )


def pneumonia_densenet161() -> Recipe:
    """The network and class weights of the seed's experiment; for a GPU, or a day of two cores.
    Its bundle is over 30 MB.
    """
    return replace(
        pneumonia_efficientnet_b0(),
        name="pneumonia-densenet161",
        network="densenet-161",
        epochs=(12, 6, 4),
        sizes=(128, 160, 224),
        lr=1e-3,
        warmup_epochs=2.0,
        ema=0.998,
        average_last=3,
        imbalance="class-weights",
    )


def pneumonia_ensemble() -> Recipe:
    """Pneumonia by six small networks of 72 pixels that read grey values in three ways; a part of
    what ships.
    """
    return replace(
        pneumonia_efficientnet_b0(),
        name="pneumonia-ensemble",
        network="resnet-tiny",
        normalisation=("fixed", "image", "high-pass", "fixed", "image", "high-pass"),
        epochs=(12,),
        sizes=(72,),
        lr=2e-3,
        augment=Augmentation(mixup=0.2, scale=0.2, contrast=0.5, noise=0.06),
    )


def pneumonia_imagenet() -> Recipe:
    """Pneumonia by EfficientNet-Lite0 that starts from ImageNet; the other part of what ships.

    5 216 images take about half an hour of a core.
    """
    return replace(
        pneumonia_efficientnet_b0(),
        name="pneumonia-imagenet",
        network="efficientnet-lite0",
        init_weights="imagenet",
        epochs=(3, 3),
        sizes=(128, 192),
        lr=6e-4,
        augment=Augmentation(mixup=0.2, scale=0.2, contrast=0.5, noise=0.06),
    )


def pneumothorax_efficientnet_b0() -> Recipe:
    """Pneumothorax from SIIM-ACR; with few images, start from pneumonia weights (`--weights
    FILE`).
    """
    return Recipe(
        name="pneumothorax-efficientnet-b0",
        task="pneumothorax",
        data_layout="siim",
        data_name="SIIM-ACR Pneumothorax, radiographs of the training part",
        data_licence="SIIM-ACR Pneumothorax Segmentation, research use only; de-identified",
        finding="pneumothorax",
        labels=Labels(negative="no pneumothorax", positive="pneumothorax"),
        scope=Scope(min_age_years=16, views=("PA", "AP"), modalities=("CR", "DX")),
        intended_use=_NOT_A_DEVICE,
        limits=(
            "Learned from radiographs of one source; where those were few, as the bundle states, "
            "its figures have "
            "wide intervals. Small or apical pneumothoraces, which cover less than one hundredth "
            "of the picture, are easily "
            "missed. Chest drains go with the label and may be what it sees. Children and other "
            "hospitals are untested."
        ),
        epochs=(8, 8),
        sizes=(128, 224),
        lr=4e-4,
        warmup_epochs=2.0,
        ema=0.97,
        dropout=0.3,
        augment=Augmentation(rotate_degrees=12.0, shift=0.1, scale=0.2, blur=0.1, noise=0.03),
        validation="folds",
    )


def pneumothorax_masks() -> Recipe:
    """Pneumothorax from SIIM-ACR by a small network from scratch, whose map also learns from
    segmentation masks.

    190 images in five folds and the final network take about a quarter of an hour of a core.
    """
    return replace(
        pneumothorax_efficientnet_b0(),
        name="pneumothorax-masks",
        network="pyramid-small",
        pool="lse",
        mask_weight=0.5,
        epochs=(8, 44),
        sizes=(128, 320),
        batch=16,
        lr=2e-3,
        ema=0.99,
        dropout=0.1,
        augment=Augmentation(rotate_degrees=12.0, shift=0.06, blur=0.1, noise=0.03),
    )


def pneumothorax_ensemble() -> Recipe:
    """Pneumothorax by three such networks of different seeds, which answer by the mean of their
    maps; the one that ships.

    190 images in five folds and the final networks take about an hour of a core.
    """
    return replace(
        pneumothorax_masks(),
        name="pneumothorax-ensemble",
        normalisation=("fixed", "fixed", "fixed"),
    )


def pneumothorax_imagenet() -> Recipe:
    """Pneumothorax by a pyramid on EfficientNet-Lite0 that starts from ImageNet, and learns from
    segmentation masks too.

    190 images in five folds and the final network take about an hour of a core.
    """
    return replace(
        pneumothorax_masks(),
        name="pneumothorax-imagenet",
        network="pyramid-lite0",
        init_weights="imagenet",
        epochs=(4, 10),
        sizes=(160, 320),
        lr=6e-4,
        ema=0.98,
        dropout=0.2,
    )


def pneumothorax_transfer() -> Recipe:
    """Pneumothorax by a larger pyramid that learns 14 findings from other images; a part of what
    ships.

    It tells whether, not where: `training join --whether` puts it beside one that tells where.

    `--data` names a SIIM tree and a folder with labels.csv, `--measure-on siim` what counts.
    """
    return replace(
        pneumothorax_masks(),
        name="pneumothorax-transfer",
        data_name="SIIM-ACR Pneumothorax and NIH ChestX-ray14, a part of either",
        data_licence="SIIM-ACR Pneumothorax Segmentation, research use only; NIH ChestX-ray14, "
        "free of restrictions on use, acknowledging the NIH Clinical Center; both de-identified",
        limits=(
            "Learned from adults' radiographs of one hospital; where those with labels read off "
            "the image were few, as the bundle states, its figures have wide intervals. Small or "
            "apical pneumothoraces, which cover less than one hundredth of the picture, are easily "
            "missed. Chest drains go with the label and may be what it sees. Children and other "
            "hospitals are untested."
        ),
        network="pyramid-large",
        pretraining=Pretraining(epochs=(12, 24), sizes=(160, 256)),
        companions=0.3,
        epochs=(2,),  # longer, or faster, and it forgets more than it learns: see LOG.md
        sizes=(256,),
        batch=20,
        lr=1e-5,
        warmup_epochs=2.0,
        ema=0.98,
        augment=Augmentation(
            rotate_degrees=12.0,
            shift=0.08,
            scale=0.2,
            gamma=0.6,
            contrast=0.5,
            brightness=0.12,
            blur=0.2,
            noise=0.05,
        ),
    )


def smoke() -> Recipe:
    """A tiny training of the whole path for tests, on whatever data is given; it learns next to
    nothing.
    """
    return Recipe(
        name="smoke",
        task="smoke",
        data_layout="any",
        data_name="made images",
        data_licence="made images, no terms",
        finding="finding",
        labels=Labels(negative="absent", positive="present"),
        scope=Scope(modalities=("CR", "DX")),
        intended_use="Tests of this software.",
        limits="It has learned next to nothing.",
        epochs=(1, 1),
        sizes=(32, 64),
        batch=8,
        ema=0.5,
        augment=Augmentation(mixup=0.2),
        folds=2,
        validation="holdout",
        threads=1,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "pneumonia-efficientnet-b0": pneumonia_efficientnet_b0,
    "pneumonia-densenet161": pneumonia_densenet161,
    "pneumonia-ensemble": pneumonia_ensemble,
    "pneumonia-imagenet": pneumonia_imagenet,
    "pneumothorax-efficientnet-b0": pneumothorax_efficientnet_b0,
    "pneumothorax-masks": pneumothorax_masks,
    "pneumothorax-ensemble": pneumothorax_ensemble,
    "pneumothorax-imagenet": pneumothorax_imagenet,
    "pneumothorax-transfer": pneumothorax_transfer,
    "smoke": smoke,
}


def recipe_named(name: str) -> Recipe:
    """Return a recipe by its name; raises `RecipeError` with the names there are."""
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}; known are: {', '.join(RECIPES)}")
    return RECIPES[name]()
