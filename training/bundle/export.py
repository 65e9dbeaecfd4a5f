"""Export a finished run directory as a bundle in the store. Every gate must hold.

    final weights -> model.onnx -> gates
    fold weights  -> graphs -> held-out predictions -> calibration, thresholds, metrics
    phantoms      -> golden.npz
    fp16, int8, bf16 of both -> held-out answers -> gates -> model.fp16.onnx, model.int8.onnx
    all of these  -> bundle.json, metrics.json, MODEL_CARD.md -> read back as the service does

Shape suffixes: N images, H and W input rows and columns, M columns of metadata.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from cxr.bundle import file_sha256, write_bundle
from cxr.graph import Graph, OnnxGraph
from cxr.interpret import Cam, NoveltyLimits, Outputs
from cxr.manifest import GraphFile, Manifest, Parity
from cxr.metrics_schema import EdgeImages
from cxr.preprocess import PreprocessSpec
from cxr.study_schema import DataStatement
from training.bundle.add_figures import write_texts
from training.bundle.checklist import checklist_lines
from training.bundle.convert_precision import StoredPrecision
from training.bundle.data_statements import known_statement
from training.bundle.golden_inputs import make_golden
from training.bundle.held_out import HeldOut, fold_graphs, predict_held_out
from training.bundle.manifest import Draft, graph_properties, write_manifest_of
from training.bundle.onnx_export import MAX_BATCH, describe, trace
from training.bundle.op_profile import profile, profile_lines
from training.bundle.precision_variants import (
    PrecisionVariants,
    Reference,
    make_variants,
    openvino_gates,
)
from training.bundle.release_gates.bundle_gates import bundle_gates
from training.bundle.release_gates.gate import require
from training.bundle.release_gates.graph_gates import (
    MAX_FILE_BYTES,
    Runner,
    edge_images,
    file_gates,
    measure_parity,
    opset_of,
    parity_gates,
)
from training.data.index import write_table
from training.fit.batches import open_cache
from training.fit.late_fusion import encode, forget_some
from training.fit.run_dir import Run, load_network, load_run
from training.model.network import ChestNet

GRAPH_FILE = "model.onnx"
_PARITY_IMAGES = 64
_PARITY_SEED = 0


def export(  # noqa: PLR0913 -- one for each option of the command
    run_dir: Path,
    store: Path,
    model: str,
    version: int,
    *,
    max_bytes: int = MAX_FILE_BYTES,
    precisions: Sequence[StoredPrecision] = (),
    statement: DataStatement | None = None,
) -> Path:
    """Write `store/model/version/` from a run directory and return its path.

    Every gate must hold; one of them is the size of a graph file, at most `max_bytes`. `precisions`
    are further graph files. A file whose gates fail is left out, and `metrics.json` has the reason.
    `statement` says what no file tells of the data; without it, what is published about them.

    Raises:
        RunError: the folder is no run directory, or its training is unfinished.
        BundleError: that version is there already.
        ExportRefused: a gate failed; nothing was written.
    """
    run = load_run(run_dir)
    with write_bundle(store, model, version) as draft, tempfile.TemporaryDirectory() as folder:
        network = load_network(run.final_weights, run.recipe)
        network.prepare_for_export()
        cam = Cam(pool=network.pool, bias=network.cam_bias)
        graph_path = draft / GRAPH_FILE
        parity = _write_graph(graph_path, run, network, cam, max_bytes)
        graphs = fold_graphs(run, graph_path, Path(folder))
        held_out = predict_held_out(run, graphs)
        splits = _write_splits(draft / "splits.csv", run, held_out)
        bare = _graph_file(graph_path, "fp32", parity)
        stated = statement or known_statement(run.index.name)
        unmeasured = Draft(model, version, run, held_out, cam, splits, bare, stated)
        manifest = write_manifest_of(unmeasured)
        describe(graph_path, graph_properties(manifest))
        golden = make_golden(OnnxGraph(graph_path), PreprocessSpec(size=run.recipe.size))
        golden.save(draft / "golden.npz")
        reference = Reference(run, held_out, graphs, manifest.profile(), golden)
        variants = make_variants(reference, graph_path, precisions, max_bytes)
        exact = _graph_file(graph_path, "fp32", parity)  # `describe` changed the file
        graph_files = [exact, *_variant_files(variants, run, network, cam)]
        novelty = _novelty_of_edges(graph_path, run.recipe.size, manifest.novelty)
        _write_with_variants(draft, manifest, variants, graph_files, novelty)
        print("\n".join(checklist_lines(manifest)), flush=True)
        require(bundle_gates(draft, run))
    _write_triton_config(store / model / "config.pbtxt", model)
    return store / model / str(version)


def _write_with_variants(
    draft: Path,
    manifest: Manifest,
    variants: PrecisionVariants,
    graph_files: Sequence[GraphFile],
    novelty: EdgeImages,
) -> None:
    """Write the texts of the bundle, with what was measured of its graph files."""
    metrics = manifest.metrics.changed(
        novelty=novelty,
        precisions={name: verdict.figures() for name, verdict in variants.verdicts.items()},
    )
    update = {"metrics": metrics, "graphs": tuple(graph_files), "fast": variants.fast}
    write_texts(draft, manifest.model_copy(update=update))


def _write_graph(path: Path, run: Run, network: ChestNet, cam: Cam, max_bytes: int) -> Parity:
    """Write the fp32 graph and hold it to its gates; print the time of its operators."""
    print("writing the graph", flush=True)
    trace(network, run.recipe.size, path, num_facts=network.num_facts)
    parity = _check_graph(path, run, network, cam, max_bytes)
    times = profile(path, run.recipe.size, network.num_facts)
    print("\n".join(profile_lines(times)), flush=True)
    return parity


def _check_graph(path: Path, run: Run, network: ChestNet, cam: Cam, max_bytes: int) -> Parity:
    """Check the gates of the graph file and return the measured parity. Raise `ExportRefused` if
    one fails.
    """
    require(file_gates(path, max_bytes))
    parity = _parity(OnnxGraph(path), run, network, cam)
    require(parity_gates(parity))
    require(openvino_gates(path, _held_out_images(run)))
    return parity


def _parity(graph: Graph, run: Run, network: ChestNet, cam: Cam) -> Parity:
    image_NHW = np.concatenate([_held_out_images(run), edge_images(run.recipe.size)])
    metadata_NM = None
    if network.num_facts:  # of every metadata feature some are known, and every image has others
        rows = run.index.rows
        metadata_NM = forget_some(
            encode([rows[i % len(rows)] for i in range(len(image_NHW))]), np.random.default_rng(0)
        )
    return measure_parity(_runner(network), graph, image_NHW, cam, metadata_NM)


def _held_out_images(run: Run) -> NDArray[np.uint8]:
    """Draw up to 64 held-out images from the cache."""
    held_out = np.concatenate([run.held_out(fold) for fold in run.held_out_folds])
    count = min(_PARITY_IMAGES, len(held_out))
    chosen = np.random.default_rng(_PARITY_SEED).choice(held_out, count, replace=False)
    return np.asarray(open_cache(run)[np.sort(chosen)])


def _runner(network: ChestNet) -> Runner:
    def run(batch_NHW: NDArray[np.uint8], metadata_NM: NDArray[np.float32] | None) -> Outputs:
        beside = () if metadata_NM is None else (torch.from_numpy(metadata_NM),)
        with torch.inference_mode():
            return Outputs(
                *(output.numpy() for output in network(torch.from_numpy(batch_NHW), *beside))
            )

    return run


def _variant_files(
    variants: PrecisionVariants, run: Run, network: ChestNet, cam: Cam
) -> Iterator[GraphFile]:
    for precision, path in variants.files.items():
        parity = _parity(OnnxGraph(path, precision=precision), run, network, cam)
        yield _graph_file(path, precision, parity)


def _novelty_of_edges(path: Path, size: int, limits: NoveltyLimits) -> EdgeImages:
    """Count the synthetic images that are no radiographs, and those over the novelty limits."""
    novelty_N = OnnxGraph(path).run(edge_images(size)).novelty_N
    return EdgeImages(
        edge_images=len(novelty_N),
        edge_images_warned=int(np.sum(novelty_N > limits.warn)),
        edge_images_novel=int(np.sum(novelty_N > limits.novel)),
    )


def _graph_file(
    path: Path, precision: Literal["fp32", "fp16", "int8"], parity: Parity
) -> GraphFile:
    return GraphFile(
        file=path.name,
        precision=precision,
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        opset=opset_of(onnx.load(path)),
        parity=parity,
    )


def _write_splits(path: Path, run: Run, held_out: HeldOut) -> Path:
    """Write splits.csv, and return its path.

    Column `fitted` is `yes` if the shipped model learned from the image, else `no`. Column
    `novelty` is its distance for a network that had not.
    """
    folds_held_out = {0} if run.recipe.validation == "holdout" else set()
    novelty_of = dict(zip(held_out.position_N.tolist(), held_out.novelty_N.tolist(), strict=True))
    names = ["image_id", "sha256", "person_group", "label", "fold", "fitted", "novelty"]
    lines = [
        [
            *(row.image_id, row.sha256, row.person_group, str(row.label), str(fold)),
            "no" if fold in folds_held_out else "yes",
            f"{novelty_of[position]:.6g}" if position in novelty_of else "",
        ]
        for position, (row, fold) in enumerate(
            zip(run.index.rows, run.fold_N.tolist(), strict=True)
        )
    ]
    write_table(path, names, lines)
    return path


def _write_triton_config(path: Path, model: str) -> None:
    """Write the model's Triton configuration; Triton completes the tensors from each version's
    graph.
    """
    path.write_text(
        f'name: "{model}"\nbackend: "onnxruntime"\nmax_batch_size: {MAX_BATCH}\ndynamic_batching '
        f"{{ }}\n",
        encoding="utf-8",
    )
