"""Two run directories on made radiographs, of other networks and sizes, that become one."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cxr.bundle import file_sha256, read_bundle
from cxr.graph.map_part import divide
from training.__main__ import main
from training.bundle.export import export
from training.fit.batches import open_cache
from training.fit.run_dir import Run, load_network, load_run
from training.model.area_pooling import averaging
from training.model.backbone import Backbone
from training.model.parallel_backbones import AtSize
from training.model.small_resnet import SmallResNetBackbone

SMALL = (
    "network=resnet-tiny",
    "normalisation=fixed,image",
    "epochs=1",
    "sizes=40",
    "split_seed=1",
    "seed=2",
)


class Untouched(Backbone):
    """A backbone that gives back what it is given."""

    channels = 1

    def forward(self, image_N1HW: torch.Tensor) -> torch.Tensor:
        return image_N1HW


@pytest.fixture(scope="module")
def small_dir(films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of two small networks of 40 pixels; the other RUN has one of 64."""
    out = tmp_path_factory.mktemp("runs") / "small"
    words = ["train", "smoke", "--data", str(films_dir), "--out", str(out)]
    assert main([*words, *(word for setting in SMALL for word in ("--set", setting))]) == 0
    return out


@pytest.fixture(scope="module")
def joined(
    efficientnet_run_dir: Path, small_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    out = tmp_path_factory.mktemp("runs") / "joined"
    words = ["join", str(small_dir), str(efficientnet_run_dir), "--out", str(out)]
    assert main([*words, "--name", "both"]) == 0
    return load_run(out)


def test_the_answer_is_the_mean_of_both_answers_and_its_map_adds_up(
    joined: Run, efficientnet_run_dir: Path, small_dir: Path
) -> None:
    image_NHW = torch.from_numpy(np.array(open_cache(joined)[:6]))
    small, large = load_run(small_dir), load_run(efficientnet_run_dir)
    shrunk_NHW = averaging(64, 40) @ (image_NHW.float() / 255.0) @ averaging(64, 40).T

    with torch.inference_mode():
        logit_N, cam_Nhw, _ = load_network(joined.final_weights, joined.recipe)(image_NHW)
        of_large = load_network(large.final_weights, large.recipe)(image_NHW)[0]
        of_small = load_network(small.final_weights, small.recipe).forward_logit(
            shrunk_NHW[:, None]
        )

    torch.testing.assert_close(logit_N, (of_large + of_small) / 2)
    assert cam_Nhw.shape == (6, 10, 10)  # cells of 8 of 40 pixels and of 32 of 64: five, and two
    network = load_network(joined.final_weights, joined.recipe)
    torch.testing.assert_close(cam_Nhw.mean(dim=(1, 2)) + network.cam_bias, logit_N)


def test_a_joined_run_is_exported_through_every_gate_and_says_what_it_is_made_of(
    joined: Run, tmp_path: Path
) -> None:
    bundle = read_bundle(export(joined.path, tmp_path, "both", 1))

    parts = bundle.manifest.recipe["joined"]
    assert [part["recipe"]["network"] for part in parts] == ["resnet-tiny", "efficientnet-b0"]
    assert bundle.manifest.recipe["name"] == "both"
    assert bundle.manifest.input_size == 64
    for part in parts:
        assert part["command"] in bundle.card
    assert "- the part `smoke` started from scratch" in bundle.card
    assert '- "resnet-tiny"\n- "efficientnet-b0"\n' in bundle.card
    assert " join " in bundle.manifest.command


@pytest.fixture(scope="module")
def second_small_dir(films_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "second-small"
    words = ["train", "smoke", "--data", str(films_dir), "--out", str(out)]
    settings = (*SMALL[:-1], "seed=4", "normalisation=fixed")
    assert main([*words, *(word for setting in settings for word in ("--set", setting))]) == 0
    return out


@pytest.fixture(scope="module")
def drawn_dir(
    run_dir: Path, small_dir: Path, second_small_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run directory whose map is drawn by the two small ones."""
    out = tmp_path_factory.mktemp("runs") / "drawn"
    runs = [str(run_dir), str(small_dir), str(second_small_dir)]
    words = ["join", *runs, "--whether", runs[0], "--where", runs[1], "--where", runs[2]]
    assert main([*words, "--out", str(out)]) == 0
    return out


def test_one_run_decides_and_others_draw(
    drawn_dir: Path, run_dir: Path, small_dir: Path, second_small_dir: Path
) -> None:
    joined, large = load_run(drawn_dir), load_run(run_dir)
    image_NHW = torch.from_numpy(np.array(open_cache(joined)[:6]))
    shrunk_NHW = averaging(64, 40) @ (image_NHW.float() / 255.0) @ averaging(64, 40).T

    with torch.inference_mode():
        network = load_network(joined.final_weights, joined.recipe)
        logit_N, cam_Nhw, _ = network(image_NHW)
        of_large = load_network(large.final_weights, large.recipe)(image_NHW)[0]
        drawn = []
        for run in (load_run(small_dir), load_run(second_small_dir)):
            drawing = load_network(run.final_weights, run.recipe)
            drawn.append(drawing.read(drawing.forward_features(shrunk_NHW[:, None]))[1])

    mean_Nhw = (drawn[0] + drawn[1]) / 2
    torch.testing.assert_close(logit_N, of_large)
    torch.testing.assert_close(cam_Nhw.mean(dim=(1, 2)) + network.cam_bias, logit_N)
    torch.testing.assert_close(
        cam_Nhw - cam_Nhw.mean(dim=(1, 2), keepdim=True),
        mean_Nhw - mean_Nhw.mean(dim=(1, 2), keepdim=True),
    )


def test_the_networks_that_draw_are_a_part_of_the_graph_that_others_do_not_need(
    drawn_dir: Path, tmp_path: Path
) -> None:
    bundle = read_bundle(export(drawn_dir, tmp_path, "both", 1, precisions=["fp16"]))
    parts = divide(bundle.graph_path.read_bytes())

    assert parts is not None
    answer, drawing = (onnx.load_from_string(part) for part in parts)
    weights = {tensor.name for tensor in answer.graph.initializer}
    own = {tensor.name for tensor in drawing.graph.initializer} - weights
    assert not [name for name in weights if name.startswith("drawing")]
    assert [name for name in own if name.startswith("drawing")]
    assert "- the part `smoke` only draws the map" in bundle.card


def test_one_run_decides_at_least(
    run_dir: Path, small_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run_dir), str(small_dir)]
    words = ["join", *runs, "--out", str(tmp_path / "x")]

    assert main([*words, "--where", runs[0], "--where", runs[1]]) == 1
    assert "one run directory must decide" in capsys.readouterr().err
    assert main([*words, "--whether", runs[0]]) == 1
    assert "all others must be named with --where" in capsys.readouterr().err
    assert main([*words, "--where", str(tmp_path)]) == 1
    assert "none of the run directories to join" in capsys.readouterr().err


def test_runs_that_do_not_go_together_are_refused(
    run_dir: Path,
    folds_run_dir: Path,
    joined: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for runs, complaint in (
        ([run_dir], "two run directories or more"),
        ([run_dir, run_dir / ".." / run_dir.name], "named twice"),
        ([run_dir, folds_run_dir], "validation differ"),
        ([run_dir, joined.path], "was joined itself"),
    ):
        assert main(["join", *map(str, runs), "--out", str(tmp_path / "x")]) == 1
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_run_that_is_there_is_not_written_over(
    run_dir: Path, small_dir: Path, joined: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["join", str(small_dir), str(run_dir), "--out", str(joined.path)]) == 1
    assert "choose another --out" in capsys.readouterr().err


def test_another_split_is_refused(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in run_dir.iterdir():
        (other / path.name).symlink_to(path)
    for name in ("splits.csv", "run.json"):
        (other / name).unlink()
    head, *rows = (run_dir / "splits.csv").read_text().splitlines()
    moved = [f"{row.rpartition(',')[0]},{1 - int(row.rpartition(',')[2])}" for row in rows]
    (other / "splits.csv").write_text("\n".join([head, *moved]) + "\n")
    facts = json.loads((run_dir / "run.json").read_text())
    facts["data"]["splits_sha256"] = file_sha256(other / "splits.csv")
    (other / "run.json").write_text(json.dumps(facts))

    assert main(["join", str(run_dir), str(other), "--out", str(tmp_path / "x")]) == 1
    assert "split otherwise" in capsys.readouterr().err


def test_the_joined_run_keeps_the_data_of_the_larger_one(
    joined: Run, efficientnet_run_dir: Path
) -> None:
    assert (joined.path / "cache" / "images.u8").read_bytes() == (
        efficientnet_run_dir / "cache" / "images.u8"
    ).read_bytes()
    facts = json.loads((joined.path / "run.json").read_text())
    assert facts["data"] == load_run(efficientnet_run_dir).facts["data"]
    assert [part["recipe"]["seed"] for part in facts["joined"]] == [2, 1]


@pytest.mark.parametrize(("side", "cells"), [(96, 12), (192, 72), (50, 7), (8, 8)])
def test_averaging_counts_parts_of_a_pixel_in_part(side: int, cells: int) -> None:
    weight_sH = averaging(side, cells)

    torch.testing.assert_close(weight_sH.sum(dim=1), torch.ones(cells))
    torch.testing.assert_close(weight_sH.sum(dim=0), torch.full((side,), cells / side))
    pixel_H = torch.rand(side)
    finest = pixel_H.repeat_interleave(
        cells
    )  # of which each pixel has `cells`, and each cell `side`
    torch.testing.assert_close(weight_sH @ pixel_H, finest.reshape(cells, side).mean(dim=1))


@pytest.mark.parametrize(("given", "size"), [(320, 256), (64, 40), (80, 80), (50, 7)])
def test_averaging_by_blocks_is_averaging_over_the_whole_image(given: int, size: int) -> None:
    image_N1HW = torch.rand(2, 1, given, given)
    weight_sH = averaging(given, size)

    shrunk_N1HW = AtSize(Untouched(), given=given, size=size, finer=1)(image_N1HW)

    torch.testing.assert_close(shrunk_N1HW, weight_sH @ image_N1HW @ weight_sH.T)


def test_repeated_cells_change_no_mean_and_no_mean_exponential() -> None:
    torch.manual_seed(1)
    plain = SmallResNetBackbone((8, 8, 8)).eval()
    image_N1HW = torch.rand(2, 1, 48, 48)

    with torch.inference_mode():
        feature_NChw, finer_NChw = (
            plain(image_N1HW),
            AtSize(plain, given=48, size=48, finer=3)(image_N1HW),
        )

    assert finer_NChw.shape[-1] == 3 * feature_NChw.shape[-1]
    torch.testing.assert_close(finer_NChw.mean(dim=(2, 3)), feature_NChw.mean(dim=(2, 3)))
    torch.testing.assert_close(
        finer_NChw.exp().mean(dim=(2, 3)), feature_NChw.exp().mean(dim=(2, 3))
    )
