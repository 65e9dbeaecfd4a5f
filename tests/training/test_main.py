"""The command line: what it teaches, what it refuses, and one small training from end to end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.__main__ import main
from training.fit.run_dir import load_run


def test_help_teaches_the_recipes_and_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])

    text = capsys.readouterr().out
    assert "pneumothorax-efficientnet-b0" in text
    assert "augment.rotate_degrees" in text
    assert "resumes an interrupted run" in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train", "nothing", "--data", "x", "--out", "y"], "unknown recipe"),
        (["train", "smoke", "--data", "x", "--out", "y"], "x is no folder"),
        (
            ["train", "smoke", "--data", "x", "--out", "y", "--set", "speed=1"],
            "unknown key 'speed'",
        ),
        (
            [
                "compare",
                "smoke",
                "--data",
                "x",
                "--out",
                "y",
                "--variants",
                "sampler,generated",
                "--seeds",
                "0",
            ],
            "one seed or more",
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1

    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["train", "explore"])
def test_ctrl_c_is_told_in_one_sentence(
    command: str,
    films_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.fit.start_or_resume.open_run", interrupt)
    monkeypatch.setattr("training.explore.survey.explore", interrupt)
    recipe = ["smoke"] if command == "train" else []
    assert main([command, *recipe, "--data", str(films_dir), "--out", str(tmp_path / "out")]) == 130

    error = capsys.readouterr().err
    assert "interrupted" in error
    assert ("the same command resumes" in error) == (command == "train")
    assert "Traceback" not in error


def test_the_parser_needs_no_torch() -> None:
    code = "import sys, training.__main__, training.data; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("validation", "network"), [("holdout", "efficientnet-b0"), ("folds", "resnet-tiny")]
)
def test_a_smoke_training_leaves_a_whole_run(
    films_dir: Path, tmp_path: Path, validation: str, network: str
) -> None:
    out = tmp_path / "run"
    words = [
        "train",
        "smoke",
        "--data",
        str(films_dir),
        "--out",
        str(out),
        "--set",
        f"validation={validation}",
        "--set",
        f"network={network}",
    ]

    assert main([*words, "--set", "epochs=1", "--set", "sizes=32"]) == 0

    run = load_run(out)
    assert run.facts["command"].startswith("python -m training train smoke --data ")
    events = [json.loads(line)["event"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert (events[0], events[-1]) == ("start", "end")
    fold, final = load_file(run.fold_weights(0)), load_file(run.final_weights)
    same = all(torch.equal(fold[name], final[name]) for name in fold)
    assert same == (validation == "holdout")
