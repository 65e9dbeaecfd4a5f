"""Train a recipe: from an opened RUN to its models, resuming whatever an interruption left.

    for each model: for each epoch: batches -> steps -> average -> validate -> save

`train` makes every model of a run directory, `train_model` one of them, and
`training.fit.epoch.train_epoch` one epoch of it.  What is kept is the running average of the
weights after the last epoch, or the mean over some last ones. Nothing is selected on the held-out
fold, so its figures stay honest.

Shape suffixes: N images, 1 channel, H rows, W columns.
"""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.fit import distributed
from training.fit.augmented_copies import generate
from training.fit.batches import Samples, epoch_length, open_samples
from training.fit.device import choose_device
from training.fit.epoch import train_epoch
from training.fit.logs import JsonLinesLog, TensorBoardLog
from training.fit.run_dir import STATE_FILE, Run, load_network, save_network
from training.fit.train_state import TrainState
from training.fit.validate import fit_novelty, validate
from training.hardware import available_cores
from training.model.network import ChestNet
from training.recipe.schema import Recipe

_MEMBER_SEEDS = 1000
"""How far the seeds of an ensemble's members lie apart: further than those of the folds."""


def train(run: Run, *, final: bool = True) -> None:
    """Train every unfinished model of a run directory."""
    distributed.refuse_empty_shards(run.recipe.batch, distributed.world_size())
    torch.set_num_threads(
        run.recipe.threads or max(1, available_cores() // distributed.local_world_size())
    )
    samples = open_samples(run)
    with JsonLinesLog(
        run.path / "log.jsonl" if distributed.is_main_process() else Path(os.devnull)
    ) as log:
        log.write(
            "start",
            device=choose_device().type,
            threads=torch.get_num_threads(),
            processes=distributed.world_size(),
        )
        starts = pretrain(run, samples)
        for number, fold in enumerate(run.held_out_folds):
            folder, held_out = run.path / f"fold-{fold}", samples.take(run.held_out(fold))
            others = _to_learn_from(run, samples, np.flatnonzero(run.fold_N != fold), folder)
            seed = run.recipe.seed + number
            train_model(run.recipe, others, held_out, folder, seed, starts=starts)
            log.write("model finished", model=f"fold-{fold}")
        if final:
            _make_final(run, samples, starts)
        distributed.barrier()
        log.write("end")


def _make_final(run: Run, samples: Samples, starts: Sequence[Path]) -> None:
    """Take the one model of a hold-out as it is; after cross-validation, train one on
    everything.
    """
    folder = run.path / "final"
    if run.recipe.validation == "folds":
        everything = _to_learn_from(run, samples, np.arange(len(samples)), folder)
        seed = run.recipe.seed + run.recipe.folds
        train_model(run.recipe, everything, None, folder, seed, starts=starts)
        return
    if distributed.is_main_process():
        take_as_final(run.path)


def take_as_final(run_dir: Path) -> None:
    """Take the one model of a hold-out as the one to export."""
    (run_dir / "final").mkdir(exist_ok=True)
    shutil.copyfile(
        run_dir / "fold-0" / "model.safetensors", run_dir / "final" / "model.safetensors"
    )


def _to_learn_from(
    run: Run, samples: Samples, position_N: NDArray[np.int64], folder: Path
) -> Samples:
    """Return the images that one model learns from, with generated ones if the recipe asks for
    them.
    """
    real = samples.take(position_N)
    if run.recipe.imbalance != "generated":
        return real
    ids = [run.index.rows[i].image_id for i in position_N]
    with distributed.main_process_first():  # the other processes read its files
        made = generate(real.image_NHW, real.label_N, ids, folder / "generated", run.recipe.seed)
    return Samples(
        np.concatenate([real.image_NHW, made.image_NHW]),
        np.concatenate([real.label_N, made.label_N]),
    )


def train_model(  # noqa: PLR0913 - what a model is made of, and where it goes
    recipe: Recipe,
    samples: Samples,
    held_out: Samples | None,
    folder: Path,
    seed: int,
    *,
    starts: Sequence[Path] = (),
) -> None:
    """Train one model into `folder`, or go on with what is there: a network, or the members of an
    ensemble and their mean.

    `held_out` is only looked at: it decides nothing.  `starts` are the members' pretrained
    networks, if there are any.
    """
    weights = folder / "model.safetensors"
    if weights.is_file():
        return
    if len(recipe.normalisation) == 1:
        start = starts[0] if starts else None
        network = train_network(recipe, samples, held_out, folder, seed, pretrained=start)
    else:
        alone = [replace(recipe, normalisation=(grey,)) for grey in recipe.normalisation]
        members = [
            _train_member(
                member,
                samples,
                held_out,
                folder / f"member-{number}",
                seed + _MEMBER_SEEDS * number,
                starts[number - 1] if starts else None,
            )
            for number, member in enumerate(alone, start=1)
        ]
        network = ChestNet.ensemble(members).to(choose_device())
    if distributed.is_main_process():
        fit_novelty(network, _own(samples), recipe.size)
    _keep(network, folder)


def _own(samples: Samples) -> Samples:
    """Leave companions out."""
    if samples.measured_N is None or samples.measured_N.all():
        return samples
    return samples.take(np.flatnonzero(samples.measured_N))


def pretrain(run: Run, samples: Samples) -> tuple[Path, ...]:
    """Train each member once on the images of persons who are not measured on, and return the
    weights that all folds start from; none if the recipe has no pretraining.
    """
    recipe, first = run.recipe, run.recipe.pretraining
    if not first.epochs:
        return ()
    schedule = replace(
        recipe,
        epochs=first.epochs,
        sizes=first.sizes,
        batch=first.batch,
        lr=first.lr,
        ema=first.ema,
        positives=first.positives,
        mask_weight=0.0,
        companions=0.0,
        average_last=1,
    )
    shown = samples.take(np.flatnonzero(run.measured_N))
    others = replace(samples.take(np.flatnonzero(run.fold_N < 0)), mask_NHW=None, has_mask_N=None)
    weights = []
    for number, normalisation in enumerate(recipe.normalisation, start=1):
        folder = run.path / "pretrained" / f"member-{number}"
        alone = replace(schedule, normalisation=(normalisation,))
        _train_member(alone, others, shown, folder, recipe.seed + _MEMBER_SEEDS * number, None)
        weights.append(folder / "model.safetensors")
    return tuple(weights)


def _train_member(  # noqa: PLR0913, PLR0917 - what a model is made of, and where it goes
    recipe: Recipe,
    samples: Samples,
    held_out: Samples | None,
    folder: Path,
    seed: int,
    start: Path | None,
) -> ChestNet:
    """Train one member of an ensemble, or read its weights if it is finished."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        network = train_network(recipe, samples, held_out, folder, seed, pretrained=start)
        _keep(network, folder)
        distributed.barrier()
    return load_network(weights, recipe).to(choose_device())


def _keep(network: ChestNet, folder: Path) -> None:
    """Write a finished network, and take away what resuming it would have needed; the first process
    alone.
    """
    if distributed.is_main_process():
        save_network(folder / "model.safetensors", network)
        (folder / STATE_FILE).unlink(missing_ok=True)


def train_network(  # noqa: PLR0913 - what a model is made of, and where it goes
    recipe: Recipe,
    samples: Samples,
    held_out: Samples | None,
    folder: Path,
    seed: int,
    *,
    pretrained: Path | None = None,
) -> ChestNet:
    """Train one network from its last finished epoch on, and return the averaged weights."""
    unfinished = folder / STATE_FILE
    folder.mkdir(parents=True, exist_ok=True)
    learns_more = pretrained is None and samples.auxiliary_NF is not None
    state = TrainState.start(
        recipe, seed, choose_device(), pretrained=pretrained, with_auxiliary_head=learns_more
    )
    state.resume(unfinished)
    if not distributed.is_main_process():
        # the other processes take their part in every step, and do nothing else
        while state.epoch < recipe.total_epochs:
            train_epoch(state, samples, folder.name)
            state.finish_epoch()
        return state.kept.network
    with (
        JsonLinesLog(folder / "metrics.jsonl", last_epoch=state.epoch) as log,
        TensorBoardLog(folder / "tensorboard", first_epoch=state.epoch + 1) as curves,
    ):
        while state.epoch < recipe.total_epochs:
            size, started = recipe.size_of_epoch(state.epoch), time.perf_counter()
            loss = train_epoch(state, samples, folder.name)
            seconds = time.perf_counter() - started
            found = None if held_out is None else validate(state.average.network, held_out, size)
            state.finish_epoch()
            pace = {
                "seconds": round(seconds, 1),
                "images_per_second": round(epoch_length(samples, recipe) / seconds, 1),
            }
            log.write("epoch", epoch=state.epoch, size=size, loss=loss, auroc=found, **pace)
            curves.write(state.epoch, loss=loss, auroc=found, **pace)
            state.save(unfinished)
    return state.kept.network
