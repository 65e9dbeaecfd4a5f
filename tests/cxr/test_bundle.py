import dataclasses
import json
from pathlib import Path

import pytest

from cxr.bundle import Bundle, read_bundle, write_bundle
from cxr.errors import BundleError
from cxr.graph import open_graph
from cxr.manifest import FastPrecision, Manifest
from tests.bundles import write_made_bundle


def test_a_bundle_reads_back_as_it_was_written(bundle: Bundle) -> None:
    assert bundle.manifest == Manifest.model_validate_json(
        (bundle.path / "bundle.json").read_text()
    )
    assert json.loads((bundle.path / "bundle.json").read_text())["schema"] == "cxr-bundle/1"


def test_an_altered_graph_is_refused_by_its_hash(bundle: Bundle) -> None:
    bundle.graph_path.write_bytes(bundle.graph_path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="hash"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("file", ["bundle.json", "model.onnx", "golden.npz"])
def test_a_bundle_that_lacks_a_file_is_refused(bundle: Bundle, file: str) -> None:
    (bundle.path / file).unlink()
    with pytest.raises(BundleError, match=file):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"default_operating_point": "none"},
        {"tta_policy": "none"},
        {"input_size": 64},
        {"model": "../x"},
    ],
)
def test_a_manifest_that_breaks_its_schema_is_refused_and_says_where(
    bundle: Bundle, change: dict[str, object]
) -> None:
    path = bundle.path / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match="schema"):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "change", [{"auroc_change": 0.004}, {"flips": 0.02}, {"precision": "int4"}]
)
def test_a_fast_precision_that_costs_too_much_breaks_the_schema(
    bundle: Bundle, change: dict[str, object]
) -> None:
    fast = {"engine": "openvino-cpu", "precision": "bf16", "images": 9, "auroc_change": 0.001,
    "flips": 0.005,
            "instructions": "avx512_bf16", "tool": "openvino 2026.4.1"}  # fmt: skip
    path = bundle.path / "bundle.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"fast": fast}))
    assert read_bundle(bundle.path).manifest.fast == FastPrecision.model_validate(fast)
    path.write_text(json.dumps(plain | {"fast": fast | change}))
    with pytest.raises(BundleError, match="fast"):
        read_bundle(bundle.path)


def test_a_manifest_can_not_reach_outside_its_folder(bundle: Bundle) -> None:
    path = bundle.path / "bundle.json"
    path.write_text(path.read_text().replace('"model.onnx"', '"../1/model.onnx"'))
    with pytest.raises(BundleError, match="outside"):
        read_bundle(bundle.path)


def test_wrong_golden_answers_are_found_when_the_graph_opens(
    bundle: Bundle, tmp_path: Path
) -> None:
    golden = bundle.golden
    golden.logit_N[1] += 0.01
    with pytest.raises(BundleError, match="logit"):
        open_graph(Bundle(bundle.path, bundle.manifest, golden))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06 no archive", b"PK\x03\x04 cut short"])
def test_a_damaged_golden_file_is_refused_by_name(bundle: Bundle, content: bytes) -> None:
    (bundle.path / "golden.npz").write_bytes(content)
    with pytest.raises(BundleError, match="golden"):
        read_bundle(bundle.path)


def test_a_graph_of_another_shape_is_refused(bundle: Bundle) -> None:
    golden = dataclasses.replace(bundle.golden, cam_Nhw=bundle.golden.cam_Nhw[:, :2])
    with pytest.raises(BundleError, match="shape"):
        open_graph(dataclasses.replace(bundle, golden=golden))


def test_a_version_is_never_written_twice(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="exists"):
        write_made_bundle(bundle.path.parent.parent, "made", 1)


def test_a_version_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with write_bundle(tmp_path, "made", 1) as draft:
            (draft / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "version"), [("Pneumonia", 1), ("../evil", 1), ("a/b", 1), ("made", 0)]
)
def test_a_name_that_no_bundle_may_have_is_refused_before_a_folder_is_made(
    tmp_path: Path, model: str, version: int
) -> None:
    with (
        pytest.raises(BundleError, match="versions count from 1"),
        write_bundle(tmp_path / "store", model, version),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
