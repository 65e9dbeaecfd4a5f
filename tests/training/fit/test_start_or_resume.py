import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.factories import chest, make_jpeg, make_png
from training.data import DataError
from training.data.split import SplitError
from training.fit.run_dir import RunError, load_run, read_splits
from training.fit.start_or_resume import open_run
from training.model.weight_names import WeightsError
from training.recipe.catalogue import pneumothorax_efficientnet_b0, smoke
from training.recipe.override import override

COMMAND = "python -m training train smoke --data radiographs --out run"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("NORMAL", "PNEUMONIA"):
        (folder / name).mkdir(parents=True)
    for number in range(6):
        (folder / f"NORMAL/IM-{number:04d}-0001.jpeg").write_bytes(
            make_jpeg(chest(64, 64, seed=number))
        )
        (folder / f"PNEUMONIA/person{number}_virus_1.jpeg").write_bytes(
            make_jpeg(chest(64, 64, seed=100 + number))
        )
    return folder


def test_a_run_says_what_it_is_made_of(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "NORMAL/IM-0009-0001.jpeg").write_bytes(b"no picture")

    run = open_run(smoke(), data_dir, tmp_path / "run", COMMAND)

    assert run.recipe == smoke()
    assert run.facts["command"] == COMMAND
    assert (
        run.facts["data"] | {"images": 12, "positives": 6, "person_groups": 12} == run.facts["data"]
    )
    assert [image["image_id"] for image in run.facts["unreadable"]] == ["IM-0009-0001"]
    assert {"python", "torch", "monai"} <= run.facts["tools"].keys()
    assert (len(run.index), len(run.fold_N)) == (12, 12)
    assert sorted(run.held_out(0).tolist() + run.held_out(1).tolist()) == list(range(12))


def test_a_run_is_read_back_as_it_was_opened(data_dir: Path, tmp_path: Path) -> None:
    opened = open_run(smoke(), data_dir, tmp_path / "run", COMMAND)

    read = load_run(tmp_path / "run")

    assert (read.recipe, read.index, read.facts) == (opened.recipe, opened.index, opened.facts)
    assert read.fold_N.tolist() == opened.fold_N.tolist()


def test_the_same_training_is_taken_up_again(data_dir: Path, tmp_path: Path) -> None:
    first = open_run(smoke(), data_dir, tmp_path / "run", COMMAND)

    again = open_run(smoke(), data_dir, tmp_path / "run", "another spelling of the command")

    assert again.facts == first.facts


def test_another_recipe_does_not_take_up_a_run(data_dir: Path, tmp_path: Path) -> None:
    open_run(smoke(), data_dir, tmp_path / "run", COMMAND)

    with pytest.raises(RunError, match=r"lr 0\.001 -> 0\.1"):
        open_run(override(smoke(), ["lr=0.1"]), data_dir, tmp_path / "run", COMMAND)


def test_another_weight_of_a_folder_does_not_take_up_a_run(data_dir: Path, tmp_path: Path) -> None:
    run = open_run(smoke(), data_dir, tmp_path / "run", COMMAND, weights=[0.5])

    assert {row.weight for row in run.index.rows} == {0.5}
    assert open_run(smoke(), data_dir, tmp_path / "run", COMMAND, weights=[0.5]).facts == run.facts
    with pytest.raises(RunError, match="other weights"):
        open_run(smoke(), data_dir, tmp_path / "run", COMMAND, weights=[1.0])


def test_other_data_do_not_take_up_a_run(data_dir: Path, tmp_path: Path) -> None:
    open_run(smoke(), data_dir, tmp_path / "run", COMMAND)
    (data_dir / "NORMAL/IM-0000-0001.jpeg").unlink()

    with pytest.raises(RunError, match="other data"):
        open_run(smoke(), data_dir, tmp_path / "run", COMMAND)


def test_a_table_that_names_the_finding_serves_a_recipe_of_any_layout(tmp_path: Path) -> None:
    folder = tmp_path / "ward"
    folder.mkdir()
    for number in range(12):
        picture = make_png(chest(64, 64, seed=number))
        (folder / f"{number}.png").write_bytes(picture)
    lines = [f"{number}.png,{number % 2}" for number in range(12)]
    (folder / "labels.csv").write_text("\n".join(["file,pneumothorax", *lines]))
    recipe = override(pneumothorax_efficientnet_b0(), ["epochs=1", "sizes=64", "warmup_epochs=0"])

    run = open_run(recipe, folder, tmp_path / "run", COMMAND)

    assert run.facts["data"]["layout"] == "labels"


def test_a_recipe_refuses_the_other_layout(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="learns from siim"):
        open_run(pneumothorax_efficientnet_b0(), data_dir, tmp_path / "run", COMMAND)


def test_data_without_one_readable_image_is_refused(data_dir: Path, tmp_path: Path) -> None:
    for number, path in enumerate(data_dir.rglob("*.jpeg")):
        path.write_bytes(b"no picture %d" % number)

    with pytest.raises(DataError, match="no image can be read"):
        open_run(smoke(), data_dir, tmp_path / "run", COMMAND)


def test_weights_to_start_from_must_be_there(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="init_weights"):
        open_run(
            override(smoke(), ["init_weights=nowhere.safetensors"]),
            data_dir,
            tmp_path / "run",
            COMMAND,
        )


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {}}))

    with pytest.raises(RunError, match=r"is no RUN of `training train`"):
        load_run(tmp_path)


def test_a_split_that_lists_other_images_is_refused(data_dir: Path, tmp_path: Path) -> None:
    run = open_run(smoke(), data_dir, tmp_path / "run", COMMAND)
    run.splits_csv.write_text("\n".join(run.splits_csv.read_text().splitlines()[:-1]) + "\n")

    with pytest.raises(ValueError, match="list different images"):
        read_splits(run.splits_csv, run.index)


def test_a_split_that_was_changed_after_training_is_refused(data_dir: Path, tmp_path: Path) -> None:
    run = open_run(smoke(), data_dir, tmp_path / "run", COMMAND)
    text = run.splits_csv.read_text().rstrip("\n")
    run.splits_csv.write_text(f"{text[:-1]}{1 - int(text[-1])}\n")

    with pytest.raises(RunError, match="not the one that it was trained on"):
        load_run(run.path)


def test_imagenet_is_refused_where_nobody_trained_the_network_on_it(
    data_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="no ImageNet weights of resnet-tiny"):
        open_run(
            override(smoke(), ["network=resnet-tiny", "init_weights=imagenet"]),
            data_dir,
            tmp_path / "run",
            COMMAND,
        )

    assert not (tmp_path / "run" / "run.json").exists()


def test_imagenet_weights_that_can_not_be_fetched_are_missed_before_a_run_is_begun(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("training.model.pretrained.EfficientNetBN", no_network)
    with pytest.raises(WeightsError, match="can't be fetched"):
        open_run(override(smoke(), ["init_weights=imagenet"]), data_dir, tmp_path / "run", COMMAND)
    assert not (tmp_path / "run/run.json").exists()


def test_weights_that_do_not_fit_are_refused_before_a_run_is_begun(
    data_dir: Path, tmp_path: Path
) -> None:
    save_file({"stem.weight": torch.zeros(1)}, tmp_path / "other.safetensors")

    with pytest.raises(WeightsError, match=r"1 left over: stem\.weight"):
        open_run(
            override(smoke(), [f"init_weights={tmp_path / 'other.safetensors'}"]),
            data_dir,
            tmp_path / "run",
            COMMAND,
        )

    assert not (tmp_path / "run" / "run.json").exists()


def test_weights_that_were_not_trained_yet_are_missed_by_name(
    data_dir: Path, tmp_path: Path
) -> None:
    run = open_run(override(smoke(), ["validation=folds"]), data_dir, tmp_path / "run", COMMAND)

    assert run.held_out_folds == (0, 1)
    with pytest.raises(RunError, match="run the training's command again"):
        run.fold_weights(1)
    with pytest.raises(RunError, match="final"):
        _ = run.final_weights


def test_a_run_is_not_taken_up_with_persons_that_its_folds_divide(
    data_dir: Path, tmp_path: Path
) -> None:
    run = open_run(smoke(), data_dir, tmp_path / "run", "command")
    one, other = (
        next(row for row, fold in zip(run.index.rows, run.fold_N, strict=True) if fold == k)
        for k in (0, 1)
    )
    table = tmp_path / "groups.csv"
    table.write_text(f"ImageId,person_group\n{one.image_id},x\n{other.image_id},x\n")

    with pytest.raises(SplitError, match="was split before this was known"):
        open_run(smoke(), data_dir, tmp_path / "run", "command", groups=table)
