"""The phases of a fleet's training: fit with a held-out part that chooses each run's stopping point, then refit.

Without a held-out part, as under the paper's schedule, there is one phase. A single run is a fleet of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifcar.cache.protocols import ProtocolTable
from ifcar.heads.contract import Head
from ifcar.pipelines.feed.batches import BatchReader
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.feed.held_out import Division
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.runs.config import RunConfig, run_id
from ifcar.pipelines.runs.finished import write_history
from ifcar.pipelines.runs.heads import build_head
from ifcar.pipelines.runs.resolve import head_arrays
from ifcar.pipelines.runs.schedule import Plan, for_all_clips
from ifcar.pipelines.scoring.scores import round_note
from ifcar.pipelines.stacks.stack import Stack, stack_heads
from ifcar.pipelines.training.checkpoint import load_state, restore, save_checkpoint
from ifcar.pipelines.training.estimate import LEAST_STEPS, SAID_FROM_SEC, seconds_of, small_config, time_line
from ifcar.pipelines.training.loop import train
from ifcar.pipelines.training.trainer import FleetRun, RunState, Trainer, TrainState, make_optimizer


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """One run of a fleet, before it is trained.

    Args:
        config: resolved.
        path: its folder.
        head: as it starts; training works on a copy.
        plan: its schedule on the whole training split.
        note: which of its weights another run left, where these are parts; the same for all runs of a fleet.
    """

    config: RunConfig
    path: Path
    head: Head
    plan: Plan
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the runs of a fleet are trained on.

    Args:
        batches: reads rows.
        trained: the whole training split.
        division: the same in two parts.
        protocol: gives the classes.
    """

    batches: BatchReader
    trained: Examples
    division: Division
    protocol: ProtocolTable


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What training left of one run.

    Args:
        failure: why it was stopped before its end, or None.
        weights: the head's final state.
        best_weights: its state at the stopping point, which never saw the held-out part; empty without one.
        history: one record a round.
        steps: optimiser steps behind the final weights.
        best_step: the stopping point, when a held-out part chose it.
        refit: whether the final weights were trained on the whole training split.
    """

    failure: str | None
    weights: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    history: Sequence[dict[str, Any]]
    steps: int
    best_step: int | None
    refit: bool


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """What one phase trains.

    Args:
        entries: the runs, with the plans of this phase.
        data: what they are trained on.
        stops: the step at which each run stops.
        chooses: whether the held-out part chooses the stopping points, and the rest is trained on; else all is.
    """

    entries: Sequence[PreparedRun]
    data: Data
    stops: Sequence[int]
    chooses: bool = False

    @property
    def examples(self) -> Examples:
        """The clips that are trained on."""
        return self.data.division.fitting if self.chooses else self.data.trained


def train_phases(entries: Sequence[PreparedRun], data: Data, folder: Path, progress: Progress) -> list[Outcome]:
    """Train by the runs' plans, from the checkpoint in `folder` where there is one; return one outcome a run."""
    schedule, plan = entries[0].config.schedule, entries[0].plan
    ids = [run_id(entry.config) for entry in entries]
    state = load_state(folder, ids) or TrainState(
        members=[RunState() for _ in entries], order=data.batches.order, runs=ids
    )
    if len(entries) == 1:  # a grid says how long its fleets take as they go
        _say_time(entries[0], data, state, progress)
    if data.division.held_out is None:
        phase = _Phase(entries=entries, data=data, stops=[plan.num_steps] * len(entries))
        weights = _run_phase(phase, state, folder, progress)
        ends = zip(state.members, weights, strict=True)
        return [_outcome(member, own, plan.num_steps, chosen=False, refit=False) for member, own in ends]
    fit_plan = for_all_clips(plan, len(data.division.fitting))
    if state.phase == "fit":
        shorter = [_with_steps_of(fit_plan, entry) for entry in entries]
        after = plan.num_steps if schedule.refit else 0
        if after:
            said = f"{fit_plan.num_steps:,} steps choose the stopping point; then the refit on all training clips"
            progress.say(f"{entries[0].config.head}: {said}, at most {after:,} steps")
        phase = _Phase(entries=shorter, data=data, stops=[fit_plan.num_steps] * len(entries), chooses=True)
        _run_phase(phase, state, folder, progress, after=after)
    steps, weights = [m.best_step for m in state.members], [m.best_weights for m in state.members]
    if schedule.refit:
        if state.phase == "fit":
            state.phase, state.step = "refit", 0
            for member in state.members:
                member.best_step = 0 if member.failure else member.best_step
        per_step = plan.num_steps / fit_plan.num_steps
        steps = [max(1, round(m.best_step * per_step)) if m.best_step else 0 for m in state.members]
        weights = _run_phase(_Phase(entries=entries, data=data, stops=steps), state, folder, progress)
    return [
        _outcome(member, own, count, chosen=True, refit=schedule.refit)
        for member, own, count in zip(state.members, weights, steps, strict=True)
    ]


def stack_states(entries: Sequence[PreparedRun], states: Sequence[dict[str, Tensor]], device: torch.device) -> Stack:
    """Return a stack of the runs' heads in these states."""
    stack = stack_heads([entry.head for entry in entries], device)
    for place, state in enumerate(states):
        stack.load(place, state)
    return stack


def _outcome(member: RunState, weights: dict[str, Tensor], steps: int, *, chosen: bool, refit: bool) -> Outcome:
    return Outcome(
        failure=member.failure,
        weights=weights,
        best_weights=member.best_weights,
        history=member.history,
        steps=steps,
        best_step=member.best_step if chosen else None,
        refit=refit,
    )


def _run_phase(
    phase: _Phase, state: TrainState, folder: Path, progress: Progress, *, after: int = 0
) -> list[dict[str, Tensor]]:
    """Train one phase from where `state` is, showing progress and saving a checkpoint every round.

    Args:
        phase: what is trained.
        state: where training is.
        folder: of the checkpoint.
        progress: told about every round.
        after: steps of the next phase at most.

    Returns:
        The runs' states at the end.
    """
    order, trainer = _trainer(phase, state)
    entries = phase.entries
    if state.step:
        restore(folder, trainer)
    name = entries[0].path.name + (f" and {len(entries) - 1} more" if len(entries) > 1 else "")
    progress.start(f"{name} {state.phase}", max(phase.stops), done=state.step, after=after)
    last = state.step

    def on_round(state: TrainState) -> None:
        nonlocal last
        progress.advance(state.step - last, note=_note(state))
        last = state.step
        save_checkpoint(folder, trainer, state)
        for entry, member in zip(entries, state.members, strict=True):
            write_history(entry.path, member.history)

    train(trainer, state, on_round)
    progress.finish()
    return [trainer.stack.state(order.index(number)) for number in range(len(entries))]


def _with_steps_of(plan: Plan, entry: PreparedRun) -> PreparedRun:
    """Return a run that is trained for the steps of a plan, at its own rate and decay."""
    return replace(entry, plan=replace(plan, lr=entry.plan.lr, weight_decay=entry.plan.weight_decay))


def _say_time(entry: PreparedRun, data: Data, state: TrainState, progress: Progress) -> None:
    """Say how long what is left of a run's training takes, and the same with the narrow preset, where it is long."""
    chooses, plan = data.division.held_out is not None, entry.plan
    first = for_all_clips(plan, len(data.division.fitting)) if chooses else plan
    after = plan.num_steps if chooses and entry.config.schedule.refit else 0
    now = first.num_steps - state.step if state.phase == "fit" else 0
    num_steps = now + (after if state.phase == "fit" else plan.num_steps - state.step)
    num_rounds = now / (first.epochs_per_round * first.steps_per_epoch)

    def seconds(own: PreparedRun) -> float:
        tried = _Phase(entries=[_with_steps_of(first, own)], data=data, stops=[first.num_steps], chooses=chooses)
        _, trainer = _trainer(tried, TrainState(members=[RunState()], order=state.order))
        return seconds_of(trainer, num_steps, num_rounds)

    if num_steps < LEAST_STEPS:
        return
    whole = seconds(entry)
    if whole < SAID_FROM_SEC:
        return
    narrow, small = small_config(entry.config), None
    if narrow is not None and set(head_arrays(narrow)) <= {*data.batches.sharded, *data.batches.tables}:
        with torch.random.fork_rng(devices=[]):
            head = build_head(narrow, data.batches.reader.spec_of(narrow.protocol), entry.head.num_classes)
        small = seconds(replace(entry, config=narrow, head=head))
    line = time_line(entry.config, data.batches.device, whole, small, refit=bool(after))
    progress.say(f"{entry.config.head}: {line}")


def _trainer(phase: _Phase, state: TrainState) -> tuple[list[int], Trainer]:
    """Return what trains a phase from its start, and the number of the run in each of its places."""
    entries, data = phase.entries, phase.data
    for entry in entries:
        entry.head.learn_labels(phase.examples.labels(len(data.protocol.labels.classes)))
    order = sorted(range(len(entries)), key=lambda number: -phase.stops[number])
    stack = stack_heads([entries[number].head for number in order], data.batches.device)
    members = [
        FleetRun(
            plan=entries[number].plan,
            stop_step=phase.stops[number],
            aux_weights=entries[number].config.aux_weights,
            seed=entries[number].config.seed,
            state=state.members[number],
        )
        for number in order
    ]
    config = entries[0].config
    trainer = Trainer(
        stack=stack,
        members=members,
        optimizer=make_optimizer(stack, members),
        batches=data.batches,
        examples=phase.examples,
        held_out=data.division.held_out if phase.chooses else None,
        label_smoothing=config.schedule.label_smoothing,
        precision=config.schedule.precision,
        classifier_only=config.fine_tune is not None and config.fine_tune.train == "classifier",
        order=state.order,
        distil=config.distil_from,
    )
    return order, trainer


def _note(state: TrainState) -> str:
    """Return the last round of the first run that goes on."""
    history = next((member.history for member in state.members if member.history and not member.failure), None)
    return "" if history is None else round_note(history[-1])
