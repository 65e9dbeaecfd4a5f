"""One comparison of two treatments on made radiographs, as small as it can be."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.__main__ import main
from training.data.index import read_table
from training.evaluation.corruptions import CORRUPTIONS
from training.experiments.variants import split_variants, variant_recipe_of
from training.fit.run_dir import load_run
from training.recipe.catalogue import smoke
from training.recipe.schema import RecipeError

SMALL = ("network=resnet-tiny", "epochs=1", "sizes=32")


@pytest.fixture(scope="module")
def compared(films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a comparison of two variants with two seeds, and the command that made it."""
    out = tmp_path_factory.mktemp("compared")
    for radiograph in sorted(
        (films_dir / "train/NORMAL").iterdir()
    ):  # out of balance: only some of the normal radiographs
        name = out / "films/NORMAL" / radiograph.name
        name.parent.mkdir(parents=True, exist_ok=True)
        if int(radiograph.stem.split("-")[2]) % 3 == 0:
            name.write_bytes(radiograph.read_bytes())
    for radiograph in sorted((films_dir / "train/PNEUMONIA").iterdir()):
        (out / "films/PNEUMONIA").mkdir(parents=True, exist_ok=True)
        (out / "films/PNEUMONIA" / radiograph.name).write_bytes(radiograph.read_bytes())
    words = [
        "compare",
        "smoke",
        "--data",
        str(out / "films"),
        "--out",
        str(out / "out"),
        "--seeds",
        "2",
    ]
    words += [
        "--variants",
        "sampler,generated",
        *(word for setting in SMALL for word in ("--set", setting)),
    ]
    assert main(words) == 0
    return out / "out", words


@pytest.fixture(scope="module")
def comparison(compared: tuple[Path, list[str]]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((compared[0] / "comparison.json").read_text())
    return found


def test_all_arms_and_seeds_share_one_split_and_one_cache(compared: tuple[Path, list[str]]) -> None:
    runs = sorted(path for path in compared[0].iterdir() if (path / "run.json").is_file())

    assert [run.name for run in runs] == [
        "generated-seed1",
        "generated-seed2",
        "sampler-seed1",
        "sampler-seed2",
    ]
    assert len({(run / "splits.csv").read_bytes() for run in runs}) == 1
    assert {(run / "cache").resolve() for run in runs} == {compared[0] / "cache"}


def test_held_out_persons_are_never_copied(compared: tuple[Path, list[str]]) -> None:
    run = load_run(compared[0] / "generated-seed1")
    held_out = {run.index.rows[i].person_group for i in run.held_out(0)}
    group_of = {row.image_id: row.person_group for row in run.index.rows}

    sources = [line["source"] for line in read_table(run.path / "fold-0/generated/generated.csv")]

    assert len(sources) > 0
    assert not held_out & {group_of[source] for source in sources}


def test_a_comparison_has_every_figure_with_its_interval(comparison: dict[str, Any]) -> None:
    assert set(comparison["variants"]) == {"sampler", "generated"}
    (pair,) = comparison["pairs"]
    for figures in (
        *(variant["mean"] for variant in comparison["variants"].values()),
        pair["difference"],
    ):
        for figure in figures.values():
            low, high = figure["ci95"]
            assert low <= figure["value"] <= high or low == pytest.approx(high)
    assert len(pair["mcnemar"]) == 2
    held_out = int(re.match(r"(\d+) held-out images", comparison["basis"])[1])  # type: ignore[index]
    for variant in comparison["variants"].values():
        assert all(np.sum(model["confusion"]) == held_out for model in variant["by_seed"].values())
    steps = {
        name: variant["by_seed"]["1"]["steps"] for name, variant in comparison["variants"].items()
    }
    assert steps["generated"] > steps["sampler"]
    assert comparison["verdict"].startswith("Fewer than 3 seeds")


def test_logits_of_plain_and_corrupted_images_are_kept(compared: tuple[Path, list[str]]) -> None:
    lines = read_table(compared[0] / "sampler-seed1/held_back.csv")

    assert list(lines[0]) == ["image_id", "person_group", "label", "plain", *CORRUPTIONS]
    assert any(line["plain"] != line["gamma 0.6"] for line in lines)


def test_the_page_shows_both_confusion_matrices_and_needs_nothing_else(
    compared: tuple[Path, list[str]],
) -> None:
    html = (compared[0] / "report.html").read_text()

    assert html.count("class=matrix>") == 4
    assert html.count("<svg") == 5
    assert "<script" not in html
    assert re.findall(r'(?:src|href)="(?!#)', html) == []


def test_the_same_command_goes_on_and_trains_nothing_again(
    compared: tuple[Path, list[str]],
) -> None:
    weights = sorted(compared[0].glob("*/fold-0/model.safetensors"))
    before, figures = (
        [path.stat().st_mtime_ns for path in weights],
        (compared[0] / "comparison.json").read_bytes(),
    )

    assert main(compared[1]) == 0

    assert [path.stat().st_mtime_ns for path in weights] == before
    assert (compared[0] / "comparison.json").read_bytes() == figures


@pytest.mark.parametrize(
    ("text", "variants"),
    [
        ("sampler,class-weights,generated", ["sampler", "class-weights", "generated"]),
        ("lr=1e-3,lr=2e-3", ["lr=1e-3", "lr=2e-3"]),
        ("sampler,generated+epochs=8,4,3", ["sampler", "generated+epochs=8,4,3"]),
        (
            "augment.scale=0.1+sizes=64,128,class-weights",
            ["augment.scale=0.1+sizes=64,128", "class-weights"],
        ),
        ("sampler,magic", ["sampler", "magic"]),
    ],
)
def test_arms_are_divided_where_one_begins(text: str, variants: list[str]) -> None:
    assert split_variants(text) == variants


def test_a_plus_may_belong_to_a_value_and_each_field_changes_once() -> None:
    recipe = variant_recipe_of(smoke(), "lr=1e+0+generated+epochs=2,3", 5)

    assert (recipe.lr, recipe.imbalance, recipe.epochs, recipe.seed) == (
        1.0,
        "generated",
        (2, 3),
        5,
    )
    with pytest.raises(RecipeError, match="once"):
        variant_recipe_of(smoke(), "sampler+generated", 5)


@pytest.mark.parametrize(
    "variant", ["folds=3", "validation=folds", "split_seed=2", "lr=1e-3+seed=4"]
)
def test_an_arm_has_the_split_and_the_seeds_of_all(variant: str) -> None:
    with pytest.raises(RecipeError, match="all variants share one split"):
        variant_recipe_of(smoke(), variant, 5)


@pytest.mark.parametrize("variants", ["sampler", "sampler,sampler"])
def test_one_arm_is_no_comparison(variants: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "smoke", "--data", "x", "--out", "y", "--variants", variants]) == 1
    assert "two variants or more" in capsys.readouterr().err


def test_an_arm_may_be_any_field_of_the_recipe_and_films_that_state_nothing_answer_alike(
    compared: tuple[Path, list[str]], tmp_path: Path
) -> None:
    words = [
        "compare",
        "smoke",
        "--data",
        str(compared[0].parent / "films"),
        "--out",
        str(tmp_path),
        "--seeds",
        "1",
    ]
    words += [
        "--variants",
        "metadata=false,metadata=true+limits=Tests.",
        "--set",
        "augment.mixup=0",
    ]

    assert main([*words, *(word for setting in SMALL for word in ("--set", setting))]) == 0

    bare, fused = (
        tmp_path / f"metadata={variant}-seed1" for variant in ("false", "true+limits=Tests.")
    )
    assert (load_run(bare).recipe.metadata, load_run(fused).recipe.metadata) == (False, True)
    assert load_run(fused).recipe.limits == "Tests."
    assert (bare / "held_back.csv").read_bytes() == (fused / "held_back.csv").read_bytes()


def test_an_unknown_treatment_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "compare",
                "smoke",
                "--data",
                "x",
                "--out",
                str(tmp_path / "y"),
                "--variants",
                "sampler,magic",
            ]
        )
        == 1
    )
    assert "imbalance" in capsys.readouterr().err
    assert not (tmp_path / "y").exists()
