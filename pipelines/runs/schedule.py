"""How long and how fast a head trains: the papers' schedules, and one for small data sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.errors import InputError

STEPS = Bounds(least=1, most=100_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Options of the training schedule.

    The paper trains appearance-based heads 30 epochs, learning rate ×0.1 every 5, and layout-only heads 50 epochs, ×0.1
    at 35 and 45 (Yan et al. 2020, §4.1–4.2): SGD, momentum 0.9, weight decay 1e-4, learning rate 1e-2, batch 72. On
    its 54,919 clips that is 22,890 or 38,150 steps.

    Args:
        kind: "paper": exactly that; "stretched": at least `min_steps` steps of Adam, and no fewer than the paper's,
            with a part of the training split held out to choose the stopping point; "auto": the paper's where the
            data set is large enough for 10,000 steps of it, else stretched.
        epochs: overrides the number of epochs, in whichever kind is used.
        milestones: epochs after which the paper's schedule divides the learning rate by 10; None takes those above.
            On Charades Yan et al. train every head for 50 epochs with 35 and 45 (§4.3).
        batch_size: clips per step; None takes 72, or 32 when stretched.
        lr: initial learning rate; None takes 1e-2 for SGD and 1e-3 for Adam.
        weight_decay: L2 factor; decoupled for Adam.
        min_steps: fewest optimiser steps of a stretched schedule.
        held_out: share of the training clips, see `ifcar.pipelines.feed.held_out`; 0 holds nothing out and trains all
            the steps once.
        refit: after the stopping point is chosen, train again on the whole training split up to it.
        label_smoothing: of the cross entropy.
        precision: "fp32", or "bf16" for the matrix products of training; weights, optimiser, losses and every
            evaluation stay in fp32.
    """

    kind: Annotated[Literal["auto", "paper", "stretched"], Option("auto, paper or stretched.", "--schedule")] = "auto"
    epochs: Annotated[int | None, Option("Passes over the training clips."), STEPS] = None
    milestones: tuple[int, ...] | None = None
    batch_size: Annotated[
        int | None,
        Option("Clips per step, over all processes.", default="72, or 32 stretched"),
        STEPS,
    ] = None
    lr: Annotated[float | None, Option("Learning rate.", default="SGD 1e-2, Adam 1e-3"), Bounds(above=0)] = None
    weight_decay: Annotated[float, Option("L2 factor."), Bounds(least=0)] = 1e-4
    min_steps: Annotated[int, Option("Fewest steps of a stretched schedule; implies --schedule stretched."), STEPS] = (
        1500
    )
    held_out: Annotated[
        float, Option("Share of training clips that choose the best weights."), Bounds(least=0, below=1)
    ] = 0.15
    refit: Annotated[
        bool, Option("Train again on all training clips up to the stopping point; implies --schedule stretched.")
    ] = True
    label_smoothing: Annotated[float, Option("Of the cross entropy."), Bounds(least=0, below=1)] = 0.0
    precision: Annotated[Literal["fp32", "bf16"], Option("fp32, or bf16 for the matrix products of training.")] = "fp32"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.milestones is not None and self.kind == "stretched":
            raise InputError("milestones would be ignored: a stretched schedule has none; use kind paper or auto")
        found = [] if self.milestones is None else list(self.milestones)
        if found != sorted({epoch for epoch in found if epoch >= 1}):
            raise InputError(f"milestones are {found}; expected epochs from 1 on, ascending")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A schedule, resolved for a number of training clips.

    Args:
        kind: "paper" or "stretched".
        optimizer: "sgd" or "adam".
        batch_size: clips per step.
        lr: initial learning rate.
        epochs: passes over the training clips.
        steps_per_epoch: optimiser steps of a pass.
        milestones: epochs after which the learning rate is divided by 10 (paper).
        epochs_per_round: epochs between two evaluations, log lines and checkpoints.
        held_out: share of the training clips that choose the stopping point; 0 under the paper's schedule.
    """

    kind: Literal["paper", "stretched"]
    optimizer: Literal["sgd", "adam"]
    batch_size: int
    lr: float
    epochs: int
    steps_per_epoch: int
    milestones: tuple[int, ...]
    epochs_per_round: int
    held_out: float = 0.0

    @property
    def num_steps(self) -> int:
        """Return the total number of optimiser steps."""
        return self.epochs * self.steps_per_epoch

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step: stepwise (paper), or warm-up and half a cosine (stretched)."""
        if self.kind == "paper":
            epoch = step // self.steps_per_epoch
            return self.lr * 0.1 ** sum(epoch >= m for m in self.milestones)
        warm_up = max(1, self.num_steps // 20)
        if step < warm_up:
            return self.lr * (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.num_steps - warm_up)
        return self.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


NUM_ROUNDS = 25
PAPER_SIZED_STEPS = 10_000  # half of what the paper's shorter schedule takes on its own data


def make_plan(config: ScheduleConfig, num_clips: int, *, reads_appearance: bool) -> Plan:
    """Resolve a schedule for `num_clips` training clips."""
    paper = _paper_plan(config, num_clips, reads_appearance=reads_appearance)
    if config.kind == "paper" or (config.kind == "auto" and paper.num_steps >= PAPER_SIZED_STEPS):
        return paper
    batch_size = min(config.batch_size or 32, num_clips)
    steps_per_epoch = math.ceil(num_clips / batch_size)
    epochs = config.epochs or math.ceil(max(config.min_steps, paper.num_steps) / steps_per_epoch)
    return Plan(
        kind="stretched",
        optimizer="adam",
        batch_size=batch_size,
        lr=config.lr or 1e-3,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        milestones=(),
        epochs_per_round=max(1, epochs // NUM_ROUNDS),
        held_out=config.held_out,
    )


def _paper_plan(config: ScheduleConfig, num_clips: int, *, reads_appearance: bool) -> Plan:
    batch_size = min(config.batch_size or 72, num_clips)
    epochs, milestones = (30, (5, 10, 15, 20, 25)) if reads_appearance else (50, (35, 45))
    return Plan(
        kind="paper",
        optimizer="sgd",
        batch_size=batch_size,
        lr=config.lr or 1e-2,
        epochs=config.epochs or epochs,
        steps_per_epoch=math.ceil(num_clips / batch_size),
        milestones=milestones if config.milestones is None else config.milestones,
        epochs_per_round=1,
    )


def for_all_clips(plan: Plan, num_clips: int) -> Plan:
    """Return the plan for the whole training split, with the same number of steps as nearly as epochs allow."""
    steps_per_epoch = math.ceil(num_clips / plan.batch_size)
    epochs = max(1, round(plan.num_steps / steps_per_epoch))
    return replace(plan, steps_per_epoch=steps_per_epoch, epochs=epochs, epochs_per_round=max(1, epochs // NUM_ROUNDS))
