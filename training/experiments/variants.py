"""Variants of a recipe: the text of `--variants`, and the recipe of each variant."""

import re
from typing import get_args

from training.recipe.override import override
from training.recipe.schema import Imbalance, Recipe, RecipeError

_SHARED = ("seed", "split_seed", "folds", "validation")
"""What all variants have alike: the images that each model is tried on."""


_BEGINS = rf"(?:{'|'.join(get_args(Imbalance))}|[a-z_][a-z0-9_.]*=)"
"""How a change begins, a treatment or a `key=`: commas and pluses before anything else belong to a
value."""


def split_variants(text: str) -> list[str]:
    """Split the text of `--variants` into variants: `sampler,generated+epochs=8,2` are two."""
    variants: list[str] = []
    for piece in text.split(","):
        if variants and "=" in variants[-1] and not re.match(_BEGINS, piece):
            variants[-1] += f",{piece}"
        else:
            variants.append(piece)
    return variants


def variant_recipe_of(recipe: Recipe, variant: str, seed: int) -> Recipe:
    """Return the recipe of one variant and seed, on the split that all share; raises
    `RecipeError`.
    """
    split_seed = recipe.seed if recipe.split_seed is None else recipe.split_seed
    changes = [
        change if "=" in change else f"imbalance={change}"
        for change in re.split(rf"\+(?={_BEGINS})", variant)
    ]
    keys = [change.partition("=")[0] for change in changes]
    if len(set(keys)) < len(keys):
        raise RecipeError(f"{variant}: a variant may change each field once")
    if shared := [key for key in keys if key in _SHARED]:
        raise RecipeError(
            f"{variant}: all variants share one split and its seeds; change {shared[0]} for all "
            f"of them, by --set"
        )
    return override(recipe, [*changes, f"seed={seed}", f"split_seed={split_seed}"])


def folder_name(variant: str) -> str:
    """Return a variant's folder name: the variant itself, without the folders of a path."""
    return re.sub(r"[^A-Za-z0-9_.,=+-]", "_", variant)
