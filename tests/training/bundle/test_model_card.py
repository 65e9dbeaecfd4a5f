from pathlib import Path

import pytest

from cxr.bundle import read_bundle
from training.bundle.model_card import card_text


def test_the_card_is_made_of_the_manifest_alone(bundle_dir: Path) -> None:
    bundle = read_bundle(bundle_dir)
    assert bundle.card == card_text(bundle.manifest)


def test_the_card_begins_with_a_head_that_model_hubs_read(bundle_dir: Path) -> None:
    head, _, rest = read_bundle(bundle_dir).card.removeprefix("---\n").partition("\n---\n")
    assert "license: apache-2.0" in head.splitlines()
    assert '- "not-for-diagnosis"' in head.splitlines()
    assert rest.lstrip().startswith("# patch, version 1")


def test_the_card_states_use_data_split_figures_and_commands(bundle_dir: Path) -> None:
    manifest, card = read_bundle(bundle_dir).manifest, read_bundle(bundle_dir).card
    assert "Not a medical device, not for diagnosis." in card
    assert manifest.training_data.licence in card
    assert manifest.metrics.basis in card
    assert manifest.command in card
    assert "python -m training export RUN --store model_store --model patch --version 1" in card
    for name in manifest.operating_points:
        assert card.count(f"| `{name}` |") == 2  # plain and TTA


@pytest.mark.parametrize(
    ("started", "said"),
    [
        (
            {"file": "model.safetensors", "sha256": "ab"},
            "started from `model.safetensors` (SHA-256 `ab`)",
        ),
        (
            {"file": "imagenet"},
            "started from ImageNet, whose images are for research and teaching,",
        ),
        (
            {"file": "imagenet", "package": "monai 1.6"},
            "started from ImageNet, as `monai 1.6` has it, whose",
        ),
        (
            {"file": "imagenet", "package": "lite 0.1", "sha256": "ab"},
            "ImageNet, as `lite 0.1` has it (SHA-256 `ab`), whose",
        ),
    ],
)
def test_the_card_says_whose_weights_a_training_started_from(
    bundle_dir: Path, started: dict[str, str], said: str
) -> None:
    manifest = read_bundle(bundle_dir).manifest
    recipe = manifest.recipe | {"init_weights": started}

    assert said in card_text(manifest.model_copy(update={"recipe": recipe}))
    assert "started from" not in card_text(manifest)


def test_a_model_near_chance_says_so_in_the_first_lines(bundle_dir: Path) -> None:
    manifest = read_bundle(bundle_dir).manifest
    poor = manifest.model_copy(
        update={"metrics": manifest.metrics.changed(auroc=0.58, auroc_ci95=[0.5, 0.67])}
    )
    good = manifest.model_copy(
        update={"metrics": manifest.metrics.changed(auroc=0.98, auroc_ci95=[0.97, 0.99])}
    )
    assert "little better than chance" in card_text(poor)
    assert "little better than chance" not in card_text(good)
