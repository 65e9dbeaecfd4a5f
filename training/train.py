"""Train a recipe: from a data folder to a RUN, resuming whatever an interruption left.

    index -> cache -> split -> for each model: for each epoch: batches -> steps -> average -> validate -> save

`train` makes the RUN, `train_model` one model of it, `_train_epoch` one epoch; they read
from top to bottom.  What is kept is the running average of the weights after the last
epoch: nothing is selected on the held-back fold, so its figures stay honest.

Shape suffixes: N images, C features.
"""

import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.average import WeightAverage
from training.balance import class_weights
from training.checkpoint import Run, load_network, load_state, save_network, save_state
from training.config import Recipe
from training.journal import Journal
from training.loss import weighted_bce
from training.metrics import auroc
from training.network import ChestNet
from training.progress import progress_bar
from training.samples import Samples, epoch_batches, open_cache, plain_batches, steps_per_epoch

FINAL = "final"


def train(run: Run) -> None:
    """Train every model of an opened RUN that is not finished yet."""
    device = choose_device()
    torch.set_num_threads(run.recipe.threads or available_cores())
    samples = Samples(open_cache(run), run.index.label_N)
    with Journal(run.path / "log.jsonl") as journal:
        journal.write("start", device=device.type, threads=torch.get_num_threads())
        for number, fold in enumerate(run.held_back_folds):
            learn, held_back = np.flatnonzero(run.fold_N != fold), run.held_back(fold)
            folder = run.path / f"fold-{fold}"
            train_model(run.recipe, samples.take(learn), samples.take(held_back), folder, run.recipe.seed + number, device)
            journal.write("model finished", model=folder.name)
        _make_final(run, samples, device)
        journal.write("end")


def _make_final(run: Run, samples: Samples, device: torch.device) -> None:
    """Take the one model of a hold-out as it is; after cross-validation, train one on everything."""
    folder = run.path / FINAL
    if run.recipe.validation == "folds":
        train_model(run.recipe, samples, None, folder, run.recipe.seed + run.recipe.folds, device)
        return
    folder.mkdir(exist_ok=True)
    shutil.copyfile(run.fold_weights(0), folder / "model.safetensors")


def train_model(
    recipe: Recipe, samples: Samples, held_back: Samples | None, folder: Path, seed: int, device: torch.device
) -> None:
    """Train one model into `folder`, from its last finished epoch on; do nothing where it is finished.

    `held_back` is only looked at: it decides nothing.
    """
    weights, resume_file = folder / "model.safetensors", folder / "state.pt"
    if weights.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = _new_network(recipe).to(device, memory_format=torch.channels_last)
    average = WeightAverage(network, recipe.ema)
    optimizer = torch.optim.AdamW(_parameter_groups(network, recipe.weight_decay), lr=recipe.lr)
    first_epoch = _resume(resume_file, network, average, optimizer)
    with Journal(folder / "metrics.jsonl") as journal:
        for epoch in range(first_epoch, recipe.total_epochs):
            started = time.perf_counter()
            loss = _train_epoch(recipe, samples, network, average, optimizer, epoch, seed, folder.name)
            seconds = time.perf_counter() - started
            auroc_held_back = None if held_back is None else validate(average.network, held_back, recipe.size_of_epoch(epoch))
            journal.write(
                "epoch", epoch=epoch + 1, size=recipe.size_of_epoch(epoch), loss=loss, auroc=auroc_held_back,
                seconds=round(seconds, 1), images_per_second=round(len(samples) / seconds, 1),
            )  # fmt: skip
            save_state(resume_file, _state(epoch + 1, network, average, optimizer))
    _fit_novelty(average.network, samples, recipe.size)
    save_network(weights, average.network)
    resume_file.unlink()


def _train_epoch(
    recipe: Recipe,
    samples: Samples,
    network: ChestNet,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    seed: int,
    name: str,
) -> float:
    """Train one epoch and give its mean loss."""
    device = network.bias.device
    torch.manual_seed(seed + 1_000_003 * (epoch + 1))  # dropout and stochastic depth draw from the global generator
    weights = class_weights(samples.label_N, recipe.imbalance)
    steps = steps_per_epoch(len(samples), recipe.batch)
    losses = []
    network.train()
    with progress_bar(total=steps, desc=f"{name} epoch {epoch + 1}/{recipe.total_epochs}", unit="batch") as bar:
        for step, (image_N1HW, target_N) in enumerate(epoch_batches(samples, recipe, epoch, seed, device)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * rate_at(epoch + step / steps, recipe)
            logit_N = network.forward_logit(image_N1HW)
            loss = weighted_bce(logit_N, target_N, smoothing=recipe.label_smoothing, weights=weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            average.update(network)
            losses.append(float(loss.detach()))
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.4f}", refresh=False)
            bar.update()
    return float(np.mean(losses))


def rate_at(epoch: float, recipe: Recipe) -> float:
    """Give the learning rate, as a share of its peak, `epoch` epochs into training: linear warm-up, then a cosine to 0."""
    if epoch < recipe.warmup_epochs:
        return (epoch + 0.01) / (recipe.warmup_epochs + 0.01)  # never 0: the first step learns something
    past = (epoch - recipe.warmup_epochs) / max(recipe.total_epochs - recipe.warmup_epochs, 1e-9)
    return 0.5 * (1.0 + math.cos(math.pi * past))


@torch.inference_mode()
def validate(network: ChestNet, samples: Samples, size: int) -> float | None:
    """Give the AUROC on plain images at `size`; None where a class is missing."""
    network.eval()
    batches = plain_batches(samples, 64, size, network.bias.device)
    logit_N = torch.cat([network.forward_logit(image_N1HW).cpu() for image_N1HW in batches])
    return auroc(samples.label_N, logit_N.numpy().astype(np.float64))


@torch.inference_mode()
def _fit_novelty(network: ChestNet, samples: Samples, size: int) -> None:
    network.eval()
    batches = plain_batches(samples, 64, size, network.bias.device)
    features = [network.forward_features(image_N1HW).mean(dim=(2, 3)) for image_N1HW in batches]
    network.fit_novelty(torch.cat(features))


def _new_network(recipe: Recipe) -> ChestNet:
    """Start from scratch, or from another model's features with a new head."""
    if recipe.init_weights is None:
        return ChestNet(recipe.network, dropout=recipe.dropout)
    network = load_network(Path(recipe.init_weights), recipe)
    network.reset_head()
    return network


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices and kernels, never norms and biases."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _state(epoch: int, network: nn.Module, average: WeightAverage, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    return {
        "epoch": epoch,
        "network": network.state_dict(),
        "average": average.network.state_dict(),
        "updates": average.updates,
        "optimizer": optimizer.state_dict(),
    }


def _resume(path: Path, network: nn.Module, average: WeightAverage, optimizer: torch.optim.Optimizer) -> int:
    """Bring everything back to the end of the last saved epoch; give the number of the next one, from 0."""
    state = load_state(path)
    if state is None:
        return 0
    network.load_state_dict(state["network"])
    average.network.load_state_dict(state["average"])
    average.updates = state["updates"]
    optimizer.load_state_dict(state["optimizer"])
    epoch: int = state["epoch"]
    return epoch


def choose_device() -> torch.device:
    """Take the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
