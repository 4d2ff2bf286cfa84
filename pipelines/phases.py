"""The phases of one training: fit with a held-out part that chooses the stopping point, then refit on everything.

The paper's schedule, and one without a held-out part, have one phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ifcar.cache.schema import ProtocolTable
from ifcar.heads.contract import Head
from ifcar.pipelines.batches import BatchReader, Examples, hold_out
from ifcar.pipelines.checkpoint import load_state, restore_model, save_checkpoint
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.run_config import RunConfig
from ifcar.pipelines.runs import write_history
from ifcar.pipelines.schedule import Plan, for_all_clips
from ifcar.pipelines.scores import Predictions, predict
from ifcar.pipelines.train import Trainer, TrainState, make_optimizer, train


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What training left besides the weights.

    Args:
        held_out: predictions of the held-out part by the weights of the stopping point, which never saw it.
        history: one record a round.
        steps: optimiser steps behind the final weights.
        best_step: the stopping point, when a held-out part chose it.
        refit: whether the final weights were trained on the whole training split.
    """

    held_out: Predictions | None
    history: Sequence[dict[str, Any]]
    steps: int
    best_step: int | None
    refit: bool


def train_phases(
    config: RunConfig,
    head: Head,
    batches: BatchReader,
    trained: Examples,
    protocol: ProtocolTable,
    plan: Plan,
    path: Path,
    clip_ids: list[str],
    progress: Progress,
) -> Outcome:
    """Train by the plan, from the checkpoint in `path` where there is one; leaves the final weights in `head`."""

    def run_phase(state: TrainState, examples: Examples, held_out: Examples | None, plan: Plan, stop: int) -> None:
        trainer = Trainer(
            head=head,
            optimizer=make_optimizer(head, plan, config.schedule.weight_decay),
            batches=batches,
            examples=examples,
            held_out=held_out,
            plan=plan,
            stop_step=stop,
            aux_weights=config.aux_weights,
            label_smoothing=config.schedule.label_smoothing,
            seed=config.seed,
            clip_ids=clip_ids,
            classifier_only=config.fine_tune is not None and config.fine_tune.train == "classifier",
        )
        run_trainer(trainer, state, path, progress, f"{path.name} {state.phase}")

    initial = {k: v.detach().clone() for k, v in head.state_dict().items()}
    state = load_state(path) or TrainState()
    if plan.kind == "paper" or not config.schedule.held_out:
        run_phase(state, trained, None, plan, plan.num_steps)
        return Outcome(held_out=None, history=state.history, steps=state.step, best_step=None, refit=False)
    fitting, held_out = hold_out(trained, protocol, config.schedule.held_out)
    fit_plan = for_all_clips(plan, len(fitting))
    if state.phase == "fit":
        run_phase(state, fitting, held_out, fit_plan, fit_plan.num_steps)
    if config.schedule.refit:
        if state.phase == "fit":
            state.phase, state.step = "refit", 0
            head.load_state_dict(initial)
            torch.manual_seed(config.seed)
        stop = max(1, round(state.best_step * plan.num_steps / fit_plan.num_steps))
        run_phase(state, trained, None, plan, stop)
    final = state.best_weights
    if config.schedule.refit:
        final = {k: v.clone() for k, v in head.state_dict().items()}
    head.load_state_dict(state.best_weights)
    held_out_predictions = predict(head, batches, held_out, clip_ids)
    head.load_state_dict(final)
    return Outcome(
        held_out=held_out_predictions,
        history=state.history,
        steps=state.step if config.schedule.refit else state.best_step,
        best_step=state.best_step,
        refit=config.schedule.refit,
    )


def run_trainer(trainer: Trainer, state: TrainState, path: Path, progress: Progress, title: str) -> None:
    """Train one phase from its state, showing progress and saving a checkpoint every round."""
    if state.step:
        restore_model(path, trainer.head, trainer.optimizer)
    progress.start(title, trainer.stop_step)
    progress.advance(state.step)
    last = state.step

    def on_round(state: TrainState) -> None:
        nonlocal last
        record = state.history[-1]
        note = f"loss {record['classification_loss']:.3f}"
        if "held_out_top1" in record:
            note += f", held-out top-1 {100 * record['held_out_top1']:.1f}"
        progress.advance(state.step - last, note=note)
        last = state.step
        save_checkpoint(path, trainer.head, trainer.optimizer, state)
        write_history(path, state.history)

    train(trainer, state, on_round)
    progress.finish()
