"""Logits of held-out images and of their corrupted copies, by the trained networks themselves.

Shape suffixes: K readings (the plain images first, then each corruption), N images, H rows, W
columns.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.index import read_table, write_table
from training.evaluation.corruptions import CORRUPTIONS, corrupted
from training.fit.batches import open_samples, plain_batches
from training.fit.device import choose_device
from training.fit.run_dir import Run, load_network
from training.stats.metrics import Floats, Labels01

READINGS = ("plain", *CORRUPTIONS)


@dataclass(frozen=True, slots=True)
class HeldOutLogits:
    """The content of held_back.csv."""

    label_N: Labels01
    groups_N: list[str]
    logit_KN: Floats


def read_logits(path: Path) -> HeldOutLogits:
    """Read held_back.csv."""
    lines = read_table(path)
    return HeldOutLogits(
        np.array([int(line["label"]) for line in lines]),
        [line["person_group"] for line in lines],
        np.array([[float(line[name]) for line in lines] for name in READINGS]),
    )


def predict_held_out(run: Run) -> None:
    """Write the logits of held-out images and of their corrupted copies, each from the network that
    had not seen it.
    """
    path = run.path / "held_back.csv"
    if path.is_file():
        return
    lines: list[list[str]] = []
    for fold in run.held_out_folds:
        positions = run.held_out(fold)
        logit_KN = _logits(run, fold)
        for column, position in enumerate(positions):
            row = run.index.rows[position]
            lines.append(
                [
                    row.image_id,
                    row.person_group,
                    str(row.label),
                    *(f"{logit:.6f}" for logit in logit_KN[:, column]),
                ]
            )
    draft = path.with_suffix(".draft")
    write_table(draft, ["image_id", "person_group", "label", *READINGS], lines)
    draft.replace(path)


@torch.inference_mode()
def _logits(run: Run, fold: int) -> Floats:
    network, size = (
        load_network(run.fold_weights(fold), run.recipe).to(choose_device()),
        run.recipe.size,
    )
    position_N = run.held_out(fold)
    held_out = open_samples(run).take(position_N)
    logits = []
    for name in READINGS:
        samples = replace(held_out, image_NHW=_changed(name, held_out.image_NHW, position_N))
        batches = plain_batches(samples, 64, size, choose_device())
        logit_N = torch.cat(
            [network.forward_logit(batch.image_N1HW, batch.metadata_NM).cpu() for batch in batches]
        )
        logits.append(logit_N.numpy())
    return np.array(logits, dtype=np.float64)


def _changed(
    profile: str, image_NHW: NDArray[np.uint8], position_N: NDArray[np.int64]
) -> NDArray[np.uint8]:
    if profile == "plain":
        return image_NHW
    return np.stack(
        [
            corrupted(profile, image_HW, int(i))
            for i, image_HW in zip(position_N, image_NHW, strict=True)
        ]
    )
