"""The reporting checklist, and the figures of a bundle's data and errors."""

import json
from pathlib import Path

import pytest

from cxr.bundle import read_bundle
from cxr.study_schema import DataStatement
from training.bundle.checklist import checklist, checklist_lines
from training.bundle.data_statements import known_statement, read_statement
from training.bundle.model_card import card_text
from training.errors import TrainingError
from training.recipe.catalogue import RECIPES

STORE = Path(__file__).parents[3] / "model_store"


def test_every_image_of_a_bundle_is_in_one_partition(bundle_dir: Path) -> None:
    manifest = read_bundle(bundle_dir).manifest
    study, data = manifest.study, manifest.training_data
    assert study is not None

    assert sum(part.images for part in study.partitions) == data.images
    assert sum(part.positives for part in study.partitions) == data.positives
    assert sum(part.persons for part in study.partitions) == data.person_groups
    assert (study.unreadable, study.without_file) == (0, 0)


def test_the_errors_are_those_of_the_default_operating_point(bundle_dir: Path) -> None:
    manifest = read_bundle(bundle_dir).manifest
    assert manifest.study is not None
    whole = manifest.study.errors[0]
    (_, false_positives), (false_negatives, _) = manifest.metrics.default_point.confusion

    assert whole.name == "all"
    assert (whole.images, whole.positives) == (manifest.metrics.n, manifest.metrics.n_positive)
    assert (whole.false_negatives, whole.false_positives) == (false_negatives, false_positives)
    named = len(manifest.study.surest_errors)
    assert named == min(5, false_negatives + false_positives)


def test_what_nobody_stated_is_called_so_in_the_card(bundle_dir: Path) -> None:
    bundle = read_bundle(bundle_dir)

    assert "| reference standard | not stated |" in bundle.card
    assert "| demographics of each partition | " in bundle.card
    assert all(item.answer != "" for item in checklist(bundle.manifest))


def test_what_a_file_states_is_in_the_card_and_in_the_printed_list(
    bundle_dir: Path, tmp_path: Path
) -> None:
    told = {"reference_standard": "CT within a day | two readers", "external_evidence": "None yet."}
    (tmp_path / "study.json").write_text(json.dumps(told), encoding="utf-8")
    manifest = read_bundle(bundle_dir).manifest
    assert manifest.study is not None
    study = manifest.study.model_copy(update={"statement": read_statement(tmp_path / "study.json")})

    stated = manifest.model_copy(update={"study": study})

    assert r"| reference standard | CT within a day \| two readers |" in card_text(stated)
    assert "**Elsewhere:** None yet." in card_text(stated)
    lines = list(checklist_lines(stated))
    assert "  reference standard: CT within a day | two readers" in lines
    assert "  eligibility: not stated" in lines


@pytest.mark.parametrize(
    ("text", "fault"),
    [('{"drains": "none"}', "drains: Extra inputs"), ("no JSON", "the file: Invalid JSON")],
)
def test_a_file_that_states_nothing_usable_is_refused_with_the_known_keys(
    text: str, fault: str, tmp_path: Path
) -> None:
    (tmp_path / "study.json").write_text(text, encoding="utf-8")

    with pytest.raises(TrainingError, match=rf"{fault}.*known keys: setting, eligibility"):
        read_statement(tmp_path / "study.json")


def test_every_recipe_on_real_data_has_its_published_reference_standard() -> None:
    real = [make() for name, make in RECIPES.items() if name != "smoke"]

    assert all(known_statement(recipe.data_name).reference_standard for recipe in real)
    assert known_statement("a ward's own images") == DataStatement()


def test_the_shipped_card_warns_of_other_hospitals_on_its_first_page() -> None:
    (newest,) = (STORE / "pneumonia").glob("*/")
    first_page = read_bundle(newest).card.partition("## Intended use")[0]

    assert "from an AUROC of 0.95 to 0.54" in first_page


def test_networks_that_only_draw_are_no_part_of_the_mean() -> None:
    (version,) = (STORE / "pneumothorax").glob("[0-9]*")
    items = {item.topic: item.answer for item in checklist(read_bundle(version).manifest)}

    assert items["ensembling"] == "none for the logit; 3 others draw the map"
