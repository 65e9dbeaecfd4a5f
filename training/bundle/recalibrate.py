"""Make a new version of a bundle whose network stays as it is: its probabilities are fitted anew.

    the bundle's held-out images, and corrupted copies -> calibration, thresholds, figures
    its graph, without needless work -> compared with the old one on the same images
    both -> a new version in the store, read back as the service will

Only images count that the network did not learn from.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.bundle import Bundle, file_sha256, read_bundle, write_bundle
from cxr.decode import quiet_libraries
from cxr.evaluation_schema import UnansweredFile
from cxr.graph import Graph, OnnxGraph
from cxr.interpret import PLAIN_PROFILE, Outputs
from cxr.manifest import GraphFile, Manifest, Parity, write_manifest
from cxr.metrics_schema import TtaFigures
from cxr.tta import PLAIN, POLICIES
from training.bundle.held_out import (
    HeldOut,
    answer_images,
    held_out_progress,
    join_answers,
)
from training.bundle.held_out_figures import fit_profile, robustness_figures
from training.bundle.lean_graph import split_wide_pools
from training.bundle.manifest import graph_properties, portable
from training.bundle.model_card import write_card
from training.bundle.onnx_export import describe
from training.bundle.release_gates.bundle_gates import opening_gate
from training.bundle.release_gates.gate import require
from training.bundle.release_gates.graph_gates import parity_gates
from training.data import DataError, load_index
from training.data.index import read_table
from training.evaluation.labelled_images import read_images, roles
from training.evaluation.predict import predict
from training.progress import progress_bar

_COMPARED = 64
"""Images on which the old and the new graph are compared."""


@dataclass(frozen=True, slots=True)
class UnseenImages:
    """Images that a bundle did not learn from, as its graph reads them."""

    image_NHW: list[NDArray[np.uint8]]
    metadata_NM: list[NDArray[np.float32]]
    label_N: NDArray[np.int64]
    group_N: tuple[str, ...]
    number_N: tuple[int, ...]
    """Their places in the bundle's `splits.csv`, by which copies are corrupted as at export."""


def recalibrate(  # noqa: PLR0913 - one for each option of the command
    bundle_dir: Path,
    data_dir: Path,
    store: Path,
    version: int,
    command: str,
    *,
    groups: Path | None = None,
) -> Path:
    """Write `store/model/version/`, and return its path.

    Only the fp32 graph comes along; what was allowed in bf16 stays allowed, since the answers
    change by rounding alone.

    Raises:
        BundleError: the bundle can't be served, or that version is there already.
        DataError: the folder holds no image that the bundle did not learn from.
        ExportRefused: a gate failed; nothing was written.
    """
    quiet_libraries()
    bundle = read_bundle(bundle_dir)
    unseen = read_unseen_images(bundle, data_dir, groups)
    model = bundle.manifest.model
    with write_bundle(store, model, version) as draft:
        graph_path = draft / bundle.graph_path.name
        split_wide_pools(bundle.graph_path, graph_path)
        graph = OnnxGraph(graph_path)
        held_out = _predict(bundle, graph, unseen)
        manifest = _refitted(bundle, held_out, version, command)
        describe(graph_path, graph_properties(manifest))
        parity = _parity(bundle, graph, unseen)
        require(parity_gates(parity))
        for name in ("golden.npz", "splits.csv"):
            shutil.copyfile(bundle.path / name, draft / name)
        file = _graph_file(graph_path, bundle, parity)
        _write(draft, manifest.model_copy(update={"graphs": (file,)}))
        require([opening_gate(draft)])
    return store / model / str(version)


def read_unseen_images(bundle: Bundle, data_dir: Path, groups: Path | None) -> UnseenImages:
    """Read the images of a folder that a bundle did not learn from; raises `DataError`."""
    manifest = bundle.manifest
    index = load_index(data_dir, groups=groups, finding=manifest.finding)
    role_of = roles(bundle)
    rows = [row for row in index.rows if role_of.get(row.sha256, "fitted") == "calibrated"]
    if len({row.label for row in rows}) < 2:
        raise DataError(
            f"{data_dir} holds no held-out images of both classes of {manifest.model} "
            f"{manifest.version}; a bundle whose network learned from all is exported anew"
        )
    lines = read_table(bundle.path / "splits.csv")
    number_of = {line["sha256"]: number for number, line in enumerate(lines)}
    shown = progress_bar(iterable=rows, total=len(rows), unit="image")
    refused: list[UnansweredFile] = []
    read = list(read_images(shown, data_dir, manifest.preprocess, refused))
    return UnseenImages(
        [image.image_HW for image in read],
        [image.metadata_M for image in read],
        np.array([image.row.label for image in read], dtype=np.int64),
        tuple(image.row.person_group for image in read),
        tuple(number_of[image.row.sha256] for image in read),
    )


def _predict(bundle: Bundle, graph: Graph, unseen: UnseenImages) -> HeldOut:
    views = POLICIES[bundle.manifest.tta_policy]
    images = list(zip(unseen.number_N, unseen.image_NHW, strict=True))
    metadata_of = dict(zip(unseen.number_N, unseen.metadata_NM, strict=True))
    with held_out_progress(len(images)) as progress:
        answers = answer_images(graph, images, views, metadata_of.__getitem__, progress)
    return join_answers(np.arange(len(images)), unseen.label_N, unseen.group_N, [answers])


def _refitted(bundle: Bundle, held_out: HeldOut, version: int, command: str) -> Manifest:
    """Return the manifest with new decision profiles and their figures."""
    old = bundle.manifest
    plain = fit_profile(held_out, PLAIN_PROFILE)
    tta = fit_profile(held_out, old.tta_policy)
    persons = len(set(held_out.group_N))
    basis = (
        f"{len(held_out.label_N):,} images of {persons:,} person groups that the network of "
        f"version {old.version} had not learned from; this version has the same network. "
        "Calibration and the operating points `youden`, `screen` and `rule_in` were fitted on "
        "these same predictions and on those of corrupted copies together, which flatters ECE, "
        "Brier score and the figures at those points a little; AUROC and `balanced` are untouched "
        "by it, and `calibration.cross_fitted` has ECE and Brier score without it."
    )
    changed = dict(plain.figures) | {
        "basis": basis,
        "tta": TtaFigures(**dict(tta.figures), policy=old.tta_policy),
        "stressed": robustness_figures(held_out),
    }
    return old.model_copy(
        update={
            "version": version,
            "readings": {PLAIN_PROFILE: plain.profile, old.tta_policy: tta.profile},
            "metrics": old.metrics.changed(**changed),
            "command": f"{old.command}\n{portable(command)}",
        }
    )


def _parity(bundle: Bundle, graph: Graph, unseen: UnseenImages) -> Parity:
    """Return the largest errors against the torch network: those stated, and what was added."""
    stated = bundle.manifest.graphs[0].parity
    chosen = list(enumerate(unseen.image_NHW[:_COMPARED]))
    pairs = zip(
        _plain(OnnxGraph(bundle.graph_path), chosen, unseen), _plain(graph, chosen, unseen),
        strict=True,
    )  # fmt: skip
    added = np.array([_differences(one, other) for one, other in pairs]).max(axis=0)
    return stated.model_copy(
        update={
            "max_logit_error": stated.max_logit_error + float(added[0]),
            "max_cam_error": stated.max_cam_error + float(added[1]),
            "max_novelty_error": stated.max_novelty_error + float(added[2]),
        }
    )


def _plain(
    graph: Graph, images: Sequence[tuple[int, NDArray[np.uint8]]], unseen: UnseenImages
) -> list[Outputs]:
    answers = predict(graph, images, (PLAIN,), lambda number: unseen.metadata_NM[number])
    return [outputs for _, outputs in answers]


def _differences(one: Outputs, other: Outputs) -> tuple[float, float, float]:
    """Return the largest differences of logit, map and novelty; the latter two are relative."""
    cam = np.abs(one.cam_Nhw - other.cam_Nhw) / np.maximum(1.0, np.abs(one.cam_Nhw))
    novelty = np.abs(one.novelty_N - other.novelty_N) / np.maximum(1.0, np.abs(one.novelty_N))
    return (
        float(np.abs(one.logit_N - other.logit_N).max()),
        float(cam.max()),
        float(novelty.max()),
    )


def _graph_file(path: Path, bundle: Bundle, parity: Parity) -> GraphFile:
    return bundle.manifest.graphs[0].model_copy(
        update={"sha256": file_sha256(path), "bytes": path.stat().st_size, "parity": parity}
    )


def _write(draft: Path, manifest: Manifest) -> None:
    write_manifest(draft / "bundle.json", manifest)
    (draft / "metrics.json").write_text(manifest.metrics.text(), encoding="utf-8")
    write_card(draft / "MODEL_CARD.md", manifest)
