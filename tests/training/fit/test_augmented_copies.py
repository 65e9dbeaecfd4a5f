from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.index import read_table
from training.fit.augmented_copies import Generated, GenerateError, generate

IDS = [f"film{i}" for i in range(12)]
LABELS = np.array([1] * 9 + [0] * 3)


def images() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 255, (12, 32, 32), dtype=np.uint8)


def make(folder: Path, seed: int = 1) -> Generated:
    return generate(images(), LABELS, IDS, folder, seed)


def test_the_rarer_class_is_filled_up_until_the_classes_balance(tmp_path: Path) -> None:
    made = make(tmp_path)

    assert made.label_N.tolist() == [0] * 6
    assert len(LABELS) + len(made.label_N) == 2 * LABELS.sum()


def test_every_image_of_the_rarer_class_is_copied_equally_often_and_names_its_copies(
    tmp_path: Path,
) -> None:
    made = make(tmp_path)

    assert sorted(made.sources) == ["film10", "film10", "film11", "film11", "film9", "film9"]
    lines = read_table(tmp_path / "generated.csv")
    assert all(line["file"].startswith(f"{line['source']}-made") for line in lines)
    assert {path.name for path in tmp_path.glob("*.png")} == {line["file"] for line in lines}


def test_copies_differ_from_their_source_and_from_each_other(tmp_path: Path) -> None:
    made = make(tmp_path)

    pictures = [image.tobytes() for image in (*made.image_NHW, *images()[9:])]
    assert len(set(pictures)) == 9


def test_the_same_seed_makes_the_same_files_and_another_one_others(tmp_path: Path) -> None:
    one, again, other = (
        make(tmp_path / "one"),
        make(tmp_path / "again"),
        make(tmp_path / "other", seed=2),
    )

    assert (one.image_NHW == again.image_NHW).all()
    assert (one.image_NHW != other.image_NHW).any()


def test_an_interrupted_making_starts_over_and_a_finished_one_is_read(tmp_path: Path) -> None:
    first = make(tmp_path)
    (tmp_path / "generated.csv").unlink()
    second = make(tmp_path)
    kept = tmp_path.stat().st_mtime_ns, make(tmp_path)

    assert (first.image_NHW == second.image_NHW).all()
    assert (kept[1].image_NHW == second.image_NHW).all()
    assert tmp_path.stat().st_mtime_ns == kept[0]


def test_a_file_that_is_gone_is_missed_by_name(tmp_path: Path) -> None:
    make(tmp_path)
    gone = next(tmp_path.glob("*.png"))
    gone.unlink()

    with pytest.raises(GenerateError, match=f"{gone.name} is gone or changed"):
        make(tmp_path)


def test_balanced_classes_need_nothing(tmp_path: Path) -> None:
    made = generate(images()[:4], np.array([0, 1, 0, 1]), IDS[:4], tmp_path, 1)

    assert len(made.label_N) == 0
    assert made.image_NHW.shape == (0, 32, 32)
