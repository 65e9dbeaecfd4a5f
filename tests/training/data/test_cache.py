from pathlib import Path

import numpy as np
import pytest

from cxr.decode import DecodeLimits, decode
from cxr.preprocess import PreprocessSpec, preprocess
from tests.factories import chest, make_dicom, make_jpeg
from training.data import DataIndex, IndexRow
from training.data.cache import build_cache, map_cache

SIZE = 32


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(
        make_dicom(chest(96, 80, seed=1), PatientAge="006M", PatientSex="F", ViewPosition="AP")
    )
    (folder / "b.jpeg").write_bytes(b"no picture")
    (folder / "c.jpeg").write_bytes(make_jpeg(chest(200, 160, seed=2)))
    (folder / "d.jpeg").write_bytes(make_jpeg(chest(64, 64, seed=3)))
    return folder


def index_of(data_dir: Path) -> DataIndex:
    rows = [
        IndexRow(
            image_id=path.stem,
            path=path.name,
            sha256=f"{number:064x}",
            person_group=path.stem,
            label=0,
        )
        for number, path in enumerate(sorted(data_dir.iterdir()))
    ]
    return DataIndex("made", tuple(rows))


def test_the_cache_holds_what_serving_would_make_of_each_file(
    data_dir: Path, tmp_path: Path
) -> None:
    index, _ = build_cache(index_of(data_dir), [data_dir], tmp_path / "cache", SIZE)

    image_NHW = map_cache(tmp_path / "cache", len(index), SIZE)
    for image_HW, row in zip(image_NHW, index.rows, strict=True):
        radiograph = decode((data_dir / row.path).read_bytes(), limits=DecodeLimits(), size=SIZE)
        np.testing.assert_array_equal(image_HW, preprocess(radiograph, PreprocessSpec(size=SIZE)))


def test_what_a_file_states_enters_the_index(data_dir: Path, tmp_path: Path) -> None:
    index, _ = build_cache(index_of(data_dir), [data_dir], tmp_path / "cache", SIZE)

    stated = {row.image_id: (row.age_years, row.sex, row.view_position) for row in index.rows}
    assert stated == {"a": (0.5, "F", "AP"), "c": (None, None, None), "d": (None, None, None)}


def test_an_image_that_can_not_be_read_takes_no_part_and_is_listed(
    data_dir: Path, tmp_path: Path
) -> None:
    index, unreadable = build_cache(index_of(data_dir), [data_dir], tmp_path / "cache", SIZE)

    assert [row.image_id for row in index.rows] == ["a", "c", "d"]
    assert [(image.image_id, image.reason.split(":")[0]) for image in unreadable] == [
        ("b", "unsupported_format")
    ]


def test_an_interrupted_cache_goes_on_where_it_was(data_dir: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    index = index_of(data_dir)
    answer = build_cache(index, [data_dir], whole, SIZE)
    build_cache(index, [data_dir], cut, SIZE)
    lines = (cut / "decoded.jsonl").read_text().splitlines(keepends=True)
    (cut / "decoded.jsonl").write_text(
        "".join(lines[:2]) + lines[2][:10]
    )  # ended while writing the third line
    (data_dir / "a.dcm").unlink()  # is not read again

    assert build_cache(index, [data_dir], cut, SIZE) == answer
    assert (cut / "images.u8").read_bytes() == (whole / "images.u8").read_bytes()


def test_another_size_starts_over(data_dir: Path, tmp_path: Path) -> None:
    build_cache(index_of(data_dir), [data_dir], tmp_path / "cache", SIZE)
    index, _ = build_cache(index_of(data_dir), [data_dir], tmp_path / "cache", 64)

    assert (tmp_path / "cache/images.u8").stat().st_size == len(index) * 64 * 64


def test_the_mapped_cache_can_not_be_written_to(data_dir: Path, tmp_path: Path) -> None:
    index, _ = build_cache(index_of(data_dir), [data_dir], tmp_path / "cache", SIZE)

    with pytest.raises(ValueError, match="read-only"):
        map_cache(tmp_path / "cache", len(index), SIZE)[0] = 0
