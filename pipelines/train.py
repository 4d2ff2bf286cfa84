"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ifcar.errors import IfcarError
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.pipelines.batches import BatchReader, Examples
from ifcar.pipelines.schedule import Plan
from ifcar.pipelines.scores import measure, predict


class NonFiniteError(IfcarError):
    """A loss or gradient stopped being a number; the weights were not moved."""


@dataclass(kw_only=True)
class TrainState:
    """Everything that changes while a head trains; a checkpoint holds exactly this.

    Args:
        phase: "fit", or "refit" for the second training on the whole training split.
        step: optimiser steps done in this phase.
        best_score: highest held-out top-1 so far (then lowest loss), or None without a held-out part.
        best_step: the step it was reached at.
        best_weights: the head's state there.
        history: one record a round.
    """

    phase: str = "fit"
    step: int = 0
    best_score: tuple[float, float] | None = None
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a training run is made of.

    Args:
        head: the model.
        optimizer: its optimiser.
        batches: reads rows.
        examples: the clips trained on.
        held_out: the clips that choose the stopping point, or None.
        plan: the resolved schedule.
        stop_step: train up to this step of the plan.
        aux_weights: weight of each auxiliary loss.
        label_smoothing: of the cross entropy.
        seed: of batch order and view choice.
        clip_ids: names of clips, for messages and predictions.
        classifier_only: everything but the classifier is frozen and runs in evaluation mode.
    """

    head: Head
    optimizer: torch.optim.Optimizer
    batches: BatchReader
    examples: Examples
    held_out: Examples | None
    plan: Plan
    stop_step: int
    aux_weights: Mapping[str, float]
    label_smoothing: float
    seed: int
    clip_ids: list[str]
    classifier_only: bool = False


def make_optimizer(head: Head, plan: Plan, weight_decay: float) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9 (paper) or Adam with decoupled weight decay (stretched)."""
    parameters = [p for p in head.parameters() if p.requires_grad]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=plan.lr, momentum=0.9, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=weight_decay, foreach=True)


def train(trainer: Trainer, state: TrainState, on_round: Callable[[TrainState], None]) -> None:
    """Train from `state.step` to the stopping step, evaluating and reporting once a round.

    The order of clips, the view of each and nothing else random but dropout depend on (seed, epoch), so a run that
    goes on from a checkpoint sees what an uninterrupted one sees.
    """
    plan, started = trainer.plan, time.perf_counter()
    sums: dict[str, float] = {}
    round_steps = plan.epochs_per_round * plan.steps_per_epoch
    while state.step < trainer.stop_step:
        epoch, place = divmod(state.step, plan.steps_per_epoch)
        rng = np.random.default_rng([trainer.seed, epoch])
        order = rng.permutation(len(trainer.examples))
        rows = trainer.examples.draw_rows(order, rng)
        for chunk in np.array_split(np.arange(len(order)), plan.steps_per_epoch)[place:]:
            for group in trainer.optimizer.param_groups:
                group["lr"] = plan.lr_at(state.step)
            targets = torch.from_numpy(trainer.examples.targets[order[chunk]]).to(trainer.batches.device)
            losses = train_step(trainer, trainer.batches.batch(rows[chunk]), targets, order[chunk], state.step)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * len(chunk)
            sums["n"] = sums.get("n", 0.0) + len(chunk)
            state.step += 1
            if state.step % round_steps == 0 or state.step == trainer.stop_step:
                finish_round(trainer, state, sums, time.perf_counter() - started)
                sums = {}
                on_round(state)
            if state.step >= trainer.stop_step:
                break


def train_step(
    trainer: Trainer, batch: InstanceBatch, targets: Tensor, places: np.ndarray[Any, np.dtype[np.int64]], step: int
) -> dict[str, float]:
    """Do one optimiser step and return its losses by name.

    Raises:
        NonFiniteError: the loss is not finite; names the step and the clips.
    """
    trainer.head.train(not trainer.classifier_only)
    out = trainer.head(batch)
    losses = {"classification": F.cross_entropy(out.logits, targets, label_smoothing=trainer.label_smoothing)}
    losses |= {name: value * trainer.aux_weights[name] for name, value in out.losses.items()}
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        clips = [trainer.clip_ids[c] for c in trainer.examples.clips[places]]
        parts = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
        raise NonFiniteError(
            f"loss is not finite at step {step} ({parts}); weights left as they were; clips: {', '.join(clips)}. "
            "Lower --lr, or check the cache with `ifcar cache verify`"
        )
    trainer.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    trainer.optimizer.step()
    return {name: float(value.detach()) for name, value in losses.items()}


def finish_round(trainer: Trainer, state: TrainState, sums: Mapping[str, float], seconds: float) -> None:
    """Evaluate the held-out part, keep the best weights and append to the history."""
    n = sums["n"]
    record: dict[str, Any] = {
        "phase": state.phase,
        "epoch": state.step // trainer.plan.steps_per_epoch,
        "step": state.step,
        "lr": trainer.plan.lr_at(state.step - 1),
        **{f"{name}_loss": value / n for name, value in sums.items() if name != "n"},
        "seconds": round(seconds, 3),
    }
    if trainer.held_out is not None:
        predictions = predict(trainer.head, trainer.batches, trainer.held_out, trainer.clip_ids)
        held_out = measure(predictions, seed=trainer.seed, started=time.perf_counter())
        record |= {"held_out_top1": held_out.top1, "held_out_loss": held_out.loss}
        score = (held_out.top1, -held_out.loss)
        if state.best_score is None or score > state.best_score:
            state.best_score, state.best_step = score, state.step
            state.best_weights = {k: v.detach().clone() for k, v in trainer.head.state_dict().items()}
    state.history.append(record)
