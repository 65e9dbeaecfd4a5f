"""A training that first learns from images that are not measured on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr.phantom import draw_phantom
from tests.factories import make_png
from training.data import DataError
from training.data.auxiliary_labels import FINDINGS, encode_auxiliary_labels
from training.data.index import IndexRow
from training.data.split import SplitError
from training.fit.auxiliary_loss import auxiliary_loss
from training.fit.run_dir import Run, load_network
from training.fit.start_or_resume import open_run
from training.fit.train import train
from training.fit.train_state import TrainState
from training.recipe.catalogue import smoke
from training.recipe.override import override
from training.recipe.pretraining import Pretraining
from training.recipe.schema import Recipe

SETTINGS = (
    "network=resnet-tiny",
    "pretraining.epochs=1", "pretraining.sizes=32", "pretraining.batch=8", "companions=0.5",
    "finding=edema", "epochs=1", "sizes=32", "validation=folds",
    "normalisation=fixed,fixed", "augment.mixup=0",
)  # fmt: skip


def make_folder(folder: Path, source: str, count: int, *, person: str) -> Path:
    """Write phantoms of two a person, every other one positive, of one source."""
    (folder / "images").mkdir(parents=True)
    lines = ["file,person_group,edema,source,label_quality,finding_labels,age,sex,view"]
    for number in range(count):
        name = f"{source}{number}.png"
        pixels = draw_phantom(64, 64, seed=len(source) * 100 + number)
        (folder / "images" / name).write_bytes(make_png(pixels))
        lines.append(
            f"images/{name},{person}{number // 2},{number % 2},{source},report-mined,Mass,50,F,PA"
        )
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders: 16 images to measure on, and 16 others, two persons of which are in both."""
    root = tmp_path_factory.mktemp("folders")
    own = make_folder(root / "own", "ward", 16, person="p")
    other = make_folder(root / "other", "elsewhere", 16, person="q")
    table = other / "labels.csv"
    table.write_text(table.read_text().replace(",q0,", ",p0,").replace(",q1,", ",p1,"))
    return [own, other]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return override(smoke(), SETTINGS)


@pytest.fixture(scope="module")
def run(folders: list[Path], recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished training."""
    out = tmp_path_factory.mktemp("run")
    opened = open_run(recipe, folders, out, "command", measure_on=["ward"])
    train(opened)
    return opened


def test_only_the_named_source_is_held_out(run: Run) -> None:
    held_out = np.concatenate([run.held_out(fold) for fold in run.held_out_folds])

    assert {run.index.rows[i].source for i in held_out} == {"ward"}
    assert len(held_out) == 16


def test_an_image_of_another_source_follows_its_person(run: Run) -> None:
    rows = list(zip(run.index.rows, run.fold_N.tolist(), strict=True))
    fold_of = {row.person_group: fold for row, fold in rows if row.source == "ward"}

    assert {fold_of.get(row.person_group, -1) == fold for row, fold in rows} == {True}
    assert sum(fold == -1 for _, fold in rows) == 12


def test_every_fold_starts_from_what_each_member_was_pretrained_to(run: Run) -> None:
    starts = [run.path / f"pretrained/member-{number}/model.safetensors" for number in (1, 2)]
    lines = (run.path / "pretrained/member-1/metrics.jsonl").read_text().splitlines()

    for start in starts:
        alone = override(run.recipe, ["normalisation=fixed"])
        assert torch.isfinite(load_network(start, alone).head.weight).all()
    assert json.loads(lines[0])["size"] == 32
    assert run.final_weights.is_file()


def test_pretraining_without_other_images_is_refused(
    folders: list[Path], recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="--measure-on"):
        open_run(recipe, folders[:1], tmp_path / "run", "command")


def test_a_source_that_is_not_there_is_refused_with_those_that_are(
    folders: list[Path], recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(SplitError, match="elsewhere, ward"):
        open_run(recipe, folders, tmp_path / "run", "command", measure_on=["nowhere"])


def test_what_is_unknown_beside_a_finding_costs_nothing() -> None:
    row = IndexRow(image_id="a", path="a", sha256="", person_group="a", label=0)
    unknown_NF = torch.from_numpy(encode_auxiliary_labels([row], "edema"))
    answer_NF = torch.randn(1, unknown_NF.shape[1], requires_grad=True)

    loss = auxiliary_loss(answer_NF, unknown_NF, Pretraining())
    loss.backward()  # type: ignore[no-untyped-call]

    assert loss.item() == 0.0
    assert answer_NF.grad is not None
    assert not answer_NF.grad.any()


@pytest.mark.parametrize("key", ["auxiliary_head", "companion"])
def test_a_pretraining_goes_on_with_its_second_head_under_its_present_and_its_former_name(
    recipe: Recipe, tmp_path: Path, key: str
) -> None:
    alone = override(recipe, ["normalisation=fixed"])
    begun, resumed = (
        TrainState.start(alone, seed, torch.device("cpu"), with_auxiliary_head=True)
        for seed in (1, 2)
    )
    path = tmp_path / "state.pt"
    begun.save(path)
    state = torch.load(path, weights_only=True)
    head = state.pop("auxiliary_head")
    torch.save(state | {key: head}, path)

    resumed.resume(path)

    assert begun.auxiliary_head is not None
    assert resumed.auxiliary_head is not None
    expected = begun.auxiliary_head.cells.weight
    assert expected.any()
    assert torch.equal(resumed.auxiliary_head.cells.weight, expected)


def test_the_finding_itself_is_not_learned_twice() -> None:
    row = IndexRow(
        image_id="a", path="a", sha256="", person_group="a", label=1, other_findings="Edema|Mass"
    )
    (auxiliary_F,) = encode_auxiliary_labels([row], "edema")

    assert np.isnan(auxiliary_F[FINDINGS.index("edema")])
    assert auxiliary_F[FINDINGS.index("mass")] == 1.0
    assert auxiliary_F[FINDINGS.index("hernia")] == 0.0
