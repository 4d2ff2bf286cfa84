"""The training loop, of one run or of a fleet of runs in lockstep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ifcar.pipelines.feed.order import draw_order
from ifcar.pipelines.runs.history import seconds_of
from ifcar.pipelines.scoring.scores import measure, predict
from ifcar.pipelines.stacks.stack import Stack
from ifcar.pipelines.training.step import compute_step, step_inputs
from ifcar.pipelines.training.trainer import Trainer, TrainState, clip_gradients, decay_matrices, not_finite


def train(trainer: Trainer, state: TrainState, on_round: Callable[[TrainState], None]) -> None:
    """Train from `state.step` to the last stopping step, evaluating and reporting once a round.

    The order of clips and the view of each depend on (seed, epoch), dropout on (seed, phase, step), and nothing else is
    random: a run sees in a fleet what it sees alone, and after going on from a checkpoint what it sees uninterrupted.
    """
    members, plan = trainer.members, trainer.members[0].plan
    started = time.perf_counter() - max(seconds_of(member.state.history, state.phase) for member in members)
    last, round_steps = members[0].stop_step, plan.epochs_per_round * plan.steps_per_epoch
    stack = trainer.stack
    sums: dict[str, Tensor] = {}
    while state.step < last:
        epoch, place = divmod(state.step, plan.steps_per_epoch)
        order, rows = draw_epoch(trainer, epoch)
        chunks = np.array_split(np.arange(len(trainer.examples)), plan.steps_per_epoch)[place:]
        trainer.batches.expect(rows[:, chunk] for chunk in chunks)
        for chunk in chunks:
            count = sum(member.stop_step > state.step for member in members)
            stack = stack if len(stack) == count else trainer.stack.first(count)
            losses = train_step(trainer, stack, state, order[:count, chunk], rows[:count, chunk])
            sums = {k: sums[k][:count] + v * len(chunk) if k in sums else v * len(chunk) for k, v in losses.items()}
            state.step += 1
            ended = state.step == last or all(member.state.failure for member in members)
            is_round = ended or state.step % round_steps == 0
            if is_round or any(member.stop_step == state.step for member in members):
                finish_round(trainer, stack, state, sums, time.perf_counter() - started, everyone=is_round)
            if is_round:
                sums = {}
                on_round(state)
            if ended:
                return


def draw_epoch(trainer: Trainer, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the order of clips and the row of each, both (M, n), or (1, n) when all members have the same seed."""
    seeds = [member.seed for member in trainer.members]
    shards = trainer.examples.rows[:, 0] // trainer.batches.reader.manifest.rows_per_shard
    orders, rows = [], []
    for seed in seeds[:1] if len(set(seeds)) == 1 else seeds:
        rng = np.random.default_rng([seed, epoch])
        orders.append(draw_order(trainer.order, shards, epoch, rng))
        rows.append(trainer.examples.draw_rows(orders[-1], rng))
    return np.stack(orders), np.stack(rows)


def train_step(
    trainer: Trainer, stack: Stack, state: TrainState, places: NDArray[np.int64], rows: NDArray[np.int64]
) -> dict[str, Tensor]:
    """Do one optimiser step of the members still training.

    Args:
        trainer: what is trained.
        stack: the heads still training, the first m of the trainer's.
        state: tells phase and step.
        places: (m, B), or (1, B) for all the same, which examples to train on.
        rows: the same shape, their rows.

    Returns:
        The losses by name, and "n", all (m,) float64.
    """
    members = trainer.members[: len(stack)]
    stack.set_training(not trainer.classifier_only)
    inputs = step_inputs(trainer, stack, state, places, rows)
    losses, norms, finite = trainer.recorder(stack, partial(compute_step, trainer, stack), inputs)
    losses = {name: loss.clone() for name, loss in losses.items()}
    stop_non_finite(trainer, state.step, losses, finite.tolist(), places)
    plan = members[0].plan
    if plan.clip_gradient is not None:
        clip_gradients(stack.gradients, norms, plan.clip_gradient)
    for place, group in enumerate(trainer.optimizer.param_groups):
        moves = place < len(stack) and members[place].state.failure is None
        group["params"][0].grad = stack.gradients[place] if moves else None
        group["lr"] = trainer.members[place].lr_at(state.step, state.phase)
        if moves and not plan.decay_vectors:
            decay_matrices(stack, place, 1 - group["lr"] * trainer.members[place].plan.weight_decay)
    trainer.optimizer.step()
    return losses | {"n": torch.ones_like(losses["classification"])}


def stop_non_finite(
    trainer: Trainer, step: int, losses: Mapping[str, Tensor], finite: list[bool], places: NDArray[np.int64]
) -> None:
    """Mark the members whose loss or gradient is not finite as failed, before their weights move."""
    for place, member in enumerate(trainer.members[: len(finite)]):
        if not finite[place] and member.state.failure is None:
            own = {name: float(loss[place]) for name, loss in losses.items()}
            clips = trainer.examples.names[places[min(place, len(places) - 1)]].tolist()
            member.state.failure = not_finite(step, own, clips, "check the cache with `ifcar cache verify`")


def finish_round(
    trainer: Trainer, stack: Stack, state: TrainState, sums: Mapping[str, Tensor], seconds: float, *, everyone: bool
) -> None:
    """Evaluate the held-out part, keep the best weights and append to the histories of those whose round ends here."""
    held_out = None
    if trainer.held_out is not None:
        held_out = predict(stack, trainer.batches, trainer.held_out)
    for place, member in enumerate(trainer.members[: len(stack)]):
        mine = member.state
        if mine.failure is not None or not (everyone or member.stop_step == state.step):
            continue
        mean = {f"{name}_loss": float(value[place] / sums["n"][place]) for name, value in sums.items() if name != "n"}
        record = {
            "phase": state.phase,
            "epoch": state.step // member.plan.steps_per_epoch,
            "step": state.step,
            "lr": member.lr_at(state.step - 1, state.phase),
            **mean,
            "seconds": round(seconds, 3),
            "fleet": len(trainer.members),
            "order": trainer.order,
        }
        started = time.perf_counter()
        metrics = None if held_out is None else measure(held_out[place], seed=member.seed, started=started)
        mine.end_round(record, metrics, partial(stack.state, place))
