import json
from pathlib import Path

import pytest

from app.errors import NotReady, UnknownModel
from app.models.execution_plan import Overrides
from app.models.opening_watchdog import OpeningWatch
from app.models.store import ModelStore
from app.models.tuning import Tuner
from cxr.graph import Runtime, open_graph
from tests.bundles import write_made_bundle


def load(path: Path, *, open_seconds: float = 60) -> ModelStore:
    tuner = Tuner(
        open_graph, Runtime(), cores=1, overrides=Overrides(run_slots=1, threads=1, max_batch=2)
    )
    store = ModelStore(path, tuner, OpeningWatch(open_seconds, lambda _: None))
    store.load()
    return store


def spoil(bundle: Path) -> None:
    """Change one byte of a bundle's graph."""
    graph = bundle / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)


def test_the_highest_version_is_current(tmp_path: Path) -> None:
    for version in (1, 9, 10):
        write_made_bundle(tmp_path, "bright", version)

    assert load(tmp_path).current("bright").manifest.version == 10


def test_a_bad_highest_version_leaves_the_next_good_one_serving_and_says_why(
    tmp_path: Path,
) -> None:
    write_made_bundle(tmp_path, "bright", 1)
    spoil(write_made_bundle(tmp_path, "bright", 2))

    store = load(tmp_path)

    assert store.current("bright").manifest.version == 1
    assert "hash" in store.model("bright").refused[2]
    assert store.faults("bright") == []


def test_a_model_without_a_good_version_is_not_ready_and_says_why(tmp_path: Path) -> None:
    spoil(write_made_bundle(tmp_path, "bright", 1))

    store = load(tmp_path)

    assert "version 1 is refused" in store.faults("bright")[0]
    with pytest.raises(NotReady):
        store.current("bright")


def test_a_bundle_that_answers_its_phantoms_wrongly_is_refused(tmp_path: Path) -> None:
    bundle = write_made_bundle(tmp_path, "bright", 1)
    other = write_made_bundle(tmp_path, "other", 1, size=64)
    (other / "golden.npz").replace(bundle / "golden.npz")

    assert load(tmp_path).model("bright").current is None


def test_a_bundle_in_another_models_folder_is_refused(tmp_path: Path) -> None:
    write_made_bundle(tmp_path, "bright", 1).parent.rename(tmp_path / "dark")

    assert "another model" in load(tmp_path).model("dark").refused[1]


def test_a_bundle_whose_manifest_breaks_the_schema_is_refused(tmp_path: Path) -> None:
    manifest = write_made_bundle(tmp_path, "bright", 1) / "bundle.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "surprise": 1}))

    assert "surprise" in load(tmp_path).model("bright").refused[1]


def test_drafts_and_other_files_are_no_versions(tmp_path: Path) -> None:
    write_made_bundle(tmp_path, "bright", 1)
    (tmp_path / "bright" / ".draft-x").mkdir()
    (tmp_path / "bright" / "02").mkdir()
    (tmp_path / "bright" / "config.pbtxt").write_text("")
    (tmp_path / "README.md").write_text("")
    (tmp_path / "empty").mkdir()

    store = load(tmp_path)

    assert [(model.name, model.versions) for model in store.models] == [("bright", (1,))]


def test_a_store_that_is_not_there_serves_nothing_and_says_so(tmp_path: Path) -> None:
    store = load(tmp_path / "nowhere")

    assert store.models == ()
    assert store.faults("bright")
    with pytest.raises(UnknownModel):
        store.current("bright")


def test_a_lease_holds_the_version_for_as_long_as_it_is_used(tmp_path: Path) -> None:
    write_made_bundle(tmp_path, "bright", 1)
    store = load(tmp_path)

    with store.lease("bright") as first, store.lease("bright") as second:
        assert first is second
        assert first.leases == 2
    assert first.leases == 0
