"""A bundle is what its hashes say, and none can harm the service that opens it."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from app.models.opening_watchdog import OpeningWatch
from app.models.store import ModelStore
from cxr.bundle import file_sha256, read_bundle
from cxr.errors import BundleError
from cxr.golden_answers import Golden
from cxr.graph import open_graph
from tests.app.models.test_store import load
from tests.app.serving import serving, until
from tests.bundles import endless_graph, replace_graph, write_made_bundle

ODD_NAMES = [b"\xff", b"lost+found", b"a\nb", b"<img src=x>", b"Bright", b"-x", b"x" * 65, b"a b"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_made_bundle(tmp_path, "bright", 1)


def change_golden(bundle: Path, **arrays: object) -> None:
    """Replace arrays of golden.npz, and its hash."""
    path = bundle / "golden.npz"
    with np.load(path) as before:
        contents = {**{name: before[name] for name in before.files}, **arrays}
    before_hash = file_sha256(path)
    np.savez_compressed(path, **contents)
    manifest = bundle / "bundle.json"
    manifest.write_text(manifest.read_text().replace(before_hash, file_sha256(path)))


@pytest.mark.anyio
async def test_folders_whose_names_are_no_models_are_ignored(bundle: Path) -> None:
    for name in ODD_NAMES:
        os.makedirs(os.fsencode(bundle.parent.parent) + b"/" + name + b"/1")  # noqa: PTH103
    async with serving(bundle.parent.parent, store_poll_seconds=0.05) as served:
        paths = ("/readyz", "/models", "/metrics", "/models/none")
        answers = [await served.client.get(path) for path in paths]
        metrics = (await served.client.get("/metrics")).text

    assert [answer.status_code for answer in answers] == [200, 200, 200, 404]
    assert [model["name"] for model in answers[1].json()["models"]] == ["bright"]
    assert 'cxr_refused_bundles{model="bright"}' in metrics
    assert metrics.count("cxr_refused_bundles{") == 1


@pytest.mark.anyio
async def test_a_model_whose_folder_is_gone_is_no_longer_listed_or_counted(bundle: Path) -> None:
    store = bundle.parent.parent
    (store / "dark/1").mkdir(parents=True)
    async with serving(store, store_poll_seconds=0.05) as served:
        names = [model.name for model in served.classifier.store.models]
        shutil.rmtree(store / "dark")
        await until(lambda: len(served.classifier.store.models) == 1)
        metrics = (await served.client.get("/metrics")).text

    assert names == ["bright", "dark"]
    assert 'cxr_refused_bundles{model="dark"}' not in metrics


@pytest.mark.anyio
async def test_a_reason_is_printable_whatever_the_bundle_holds(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    odd = {f"\u202e\x00{number}\n" + "x" * 400: 1 for number in range(3)}
    (bundle / "bundle.json").write_text(json.dumps({**manifest, **odd}))
    async with serving(bundle.parent.parent) as served:
        answer = await served.client.get("/models/bright")
    (version,) = answer.json()["versions"]

    assert version["state"] == "refused"
    assert version["reason"].isprintable()
    assert len(version["reason"]) <= 500


def test_weights_outside_the_graph_are_refused(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    replace_graph(bundle, model)

    assert (bundle / "weights.bin").exists()
    with pytest.raises(BundleError, match="outside its own file"):
        open_graph(read_bundle(bundle))


def test_weights_outside_the_graph_are_found_in_a_loops_body_too(bundle: Path) -> None:
    model = endless_graph()
    loop = model.graph.node[-1]
    tensor = loop.attribute[0].g.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    replace_graph(bundle, model)

    with pytest.raises(BundleError, match="outside its own file"):
        open_graph(read_bundle(bundle))


def test_the_graph_that_is_opened_is_the_one_that_was_hashed(bundle: Path) -> None:
    read = read_bundle(bundle)
    onnx.save(endless_graph(), bundle / "model.onnx")

    with pytest.raises(BundleError, match="does not match its hash"):
        open_graph(read)


def test_golden_answers_are_hashed(bundle: Path) -> None:
    path = bundle / "golden.npz"
    golden = Golden.parse(path.read_bytes())
    golden.logit_N[0] += 1
    golden.save(path)

    with pytest.raises(BundleError, match=r"golden.npz does not match its hash"):
        read_bundle(bundle)


@pytest.mark.parametrize("tolerance", [np.inf, np.nan, 1e9, 0.06, -1.0])
def test_a_tolerance_that_allows_anything_is_refused(bundle: Path, tolerance: float) -> None:
    change_golden(
        bundle,
        tolerance_names=np.array(["onnxruntime-cpu/fp32"]),
        tolerances=np.array([tolerance]),
    )

    with pytest.raises(BundleError, match="tolerance"):
        open_graph(read_bundle(bundle))


@pytest.mark.parametrize(
    "arrays",
    [
        {"image": np.zeros((20_000, 64, 64), np.uint8)},
        {"cam": np.zeros((3, 3000, 3000), np.float32)},
        {"more": np.zeros(70 * 2**20, np.uint8)},
        {f"more{number}": np.zeros(1, np.uint8) for number in range(20)},
    ],
)
def test_golden_arrays_are_not_inflated_beyond_a_limit(
    bundle: Path, arrays: dict[str, object]
) -> None:
    change_golden(bundle, **arrays)

    with pytest.raises(BundleError, match=r"golden.npz holds more than"):
        read_bundle(bundle)


@pytest.mark.parametrize("file", ["bundle.json", "model.onnx", "golden.npz"])
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_file_that_is_a_pipe_or_a_link_is_refused_at_once(
    bundle: Path, file: str, kind: str
) -> None:
    path = bundle / file
    moved = bundle.parent / "moved"
    path.rename(moved)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(moved)

    with pytest.raises(BundleError, match=f"{file} can't be read"):
        read_bundle(bundle)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["pipe", "link", "large", "none"])
async def test_a_card_that_is_no_file_of_usual_size_is_not_shown(bundle: Path, kind: str) -> None:
    card = bundle / "MODEL_CARD.md"
    card.unlink()
    if kind == "pipe":
        os.mkfifo(card)
    elif kind == "link":
        card.symlink_to("/proc/self/environ")
    elif kind == "large":
        card.write_text("*a **b " * 100_000)
    async with serving(bundle.parent.parent) as served:
        answer = await served.client.get("/models/bright/card")
        prediction = await served.client.get("/models/bright")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert prediction.json()["current"] is not None


@pytest.mark.anyio
async def test_a_card_is_read_when_its_version_is_opened_and_not_again(bundle: Path) -> None:
    async with serving(bundle.parent.parent, store_poll_seconds=0) as served:
        (bundle / "MODEL_CARD.md").unlink()
        os.mkfifo(bundle / "MODEL_CARD.md")
        answer = await served.client.get("/models/bright/card")

    assert answer.status_code == 200
    assert "A made model for tests" in answer.text


def test_an_opening_that_never_ends_is_stopped_and_the_next_version_serves(bundle: Path) -> None:
    store = bundle.parent.parent
    replace_graph(write_made_bundle(store, "bright", 2), endless_graph())
    loaded = load(store, open_seconds=0.5)

    assert loaded.current("bright").manifest.version == 1
    assert loaded.model("bright").refused[2] == "it was not open after 0.5 s"


@pytest.mark.anyio
async def test_an_opening_that_takes_long_is_shown_and_stops_no_other_change(
    bundle: Path,
) -> None:
    store = bundle.parent.parent
    async with serving(store, store_poll_seconds=0.05, open_seconds=4) as served:
        replace_graph(write_made_bundle(store, "bright", 2), endless_graph())
        shown = served.classifier.store
        await until(lambda: any("has been opening" in note for note in shown.notes), seconds=30)
        readiness = await served.client.get("/readyz")
        metrics = (await served.client.get("/metrics")).text
        write_made_bundle(store, "bright", 3)
        await until(lambda: _version(shown) == 3, seconds=30)

    assert readiness.status_code == 200
    assert "bright version 2 has been opening for" in readiness.text
    assert float(metrics.partition("\ncxr_bundle_opening_seconds ")[2].split()[0]) > 1


def _version(store: ModelStore) -> int:
    return store.current("bright").manifest.version


def test_a_watch_reports_while_a_version_is_opened_and_nothing_afterwards() -> None:
    reported: list[float] = []
    is_reported = threading.Event()

    def report(seconds: float) -> None:
        reported.append(seconds)
        if seconds:
            is_reported.set()

    watch = OpeningWatch(0.2, report)
    with watch.watch("bright", 7) as cancellation:
        stopped = threading.Event()
        cancellation.on_cancel(stopped.set)
        assert is_reported.wait(10)
        assert stopped.wait(10)
        assert watch.notes[0].startswith("bright version 7 has been opening")

    assert reported[-1] == 0.0
    assert watch.notes == []
    assert cancellation.reason == "it was not open after 0.2 s"
