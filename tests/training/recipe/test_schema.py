import dataclasses

import pytest

from training.recipe.catalogue import RECIPES, pneumonia_efficientnet_b0, recipe_named, smoke
from training.recipe.override import known_keys, override
from training.recipe.schema import RecipeError, recipe_from_dict, recipe_to_dict


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named_as_it_is_called_and_survives_being_written_down(name: str) -> None:
    recipe = recipe_named(name)

    assert recipe.name == name
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        smoke().lr = 1.0  # type: ignore[misc]


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="known are: pneumonia-efficientnet-b0"):
        recipe_named("pneumonia")


def test_an_override_is_read_by_the_type_of_its_field() -> None:
    settings = [
        "epochs=2,3",
        "sizes=64,96",
        "lr=2e-4",
        "augment.rotate_degrees=5",
        "init_weights=a=b.safetensors",
        "scope.sexes=F,M",
        "scope.min_age_years=none",
        "labels.negative=clear",
    ]

    recipe = override(pneumonia_efficientnet_b0(), settings)

    assert (recipe.epochs, recipe.sizes, recipe.lr) == ((2, 3), (64, 96), 2e-4)
    assert recipe.augment.rotate_degrees == 5.0
    assert recipe.init_weights == "a=b.safetensors"
    assert (recipe.scope.sexes, recipe.scope.min_age_years) == (("F", "M"), None)
    assert recipe.labels.negative == "clear"


def test_an_override_leaves_everything_else_as_it_was() -> None:
    assert override(smoke(), ["seed=7"]) == dataclasses.replace(smoke(), seed=7)


@pytest.mark.parametrize("setting", ["learning_rate=1", "augment.turn=1", "augment=1", "lr.deep=1"])
def test_an_unknown_key_is_answered_with_the_known_ones(setting: str) -> None:
    with pytest.raises(RecipeError, match=r"unknown key .* known are: .*augment\.rotate_degrees"):
        override(smoke(), [setting])


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("lr", "expected key=value"),
        ("lr=fast", "lr: Input should be a valid number"),
        ("lr=-1", "lr: Input should be greater than 0"),
        ("batch=1", "batch: "),
        ("sizes=16,64", "sizes.0: "),
        ("sizes=40,72", "sizes must be multiples of 32 for efficientnet-b0"),
        ("sizes=96,64", "sizes must not shrink"),
        ("epochs=1", "epochs and sizes differ in length"),
        ("warmup_epochs=9", "warmup_epochs exceeds the epochs"),
        ("average_last=2", "average_last exceeds the epochs at the last size"),
        ("validation=none", "validation: "),
        ("augment.mirror=1.5", "augment.mirror: "),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(setting: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        override(smoke(), [setting])


def test_known_keys_reach_into_the_nested_parts() -> None:
    assert {"lr", "augment.gamma", "labels.positive", "scope.views"} <= set(known_keys())


def test_sizes_follow_one_another_over_the_epochs() -> None:
    recipe = override(smoke(), ["epochs=2,1", "sizes=32,64"])

    assert [recipe.size_of_epoch(epoch) for epoch in range(recipe.total_epochs)] == [32, 32, 64]
    assert recipe.size == 64
    with pytest.raises(IndexError):
        recipe.size_of_epoch(3)


def test_small_resnets_take_sizes_that_deeper_networks_refuse() -> None:
    assert override(smoke(), ["network=resnet-tiny", "sizes=40,72"]).size == 72
    with pytest.raises(RecipeError, match="multiples of 8 for resnet-tiny"):
        override(smoke(), ["network=resnet-tiny", "sizes=40,70"])


@pytest.mark.parametrize(
    "setting", ["augment.mixup=0.2", "imbalance=generated", "normalisation=fixed,image"]
)
def test_metadata_go_with_whole_films_and_one_network(setting: str) -> None:
    plain = override(smoke(), ["augment.mixup=0", "metadata=true"])

    assert plain.metadata
    with pytest.raises(RecipeError, match="no mixup, nothing generated"):
        override(plain, [setting])
