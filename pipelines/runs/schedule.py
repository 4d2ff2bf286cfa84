"""How long and how fast a head trains: the papers' schedules, and one for small data sets."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.errors import InputError
from ifcar.heads.schedules import Optimisation, Schedule, common_schedule

STEPS = Bounds(least=1, most=100_000_000)
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Options of the training schedule.

    Published trainings belong to heads, see `Head.schedules`. That of most heads (`common_schedule`, Yan et al. 2020)
    is 22,890 or 38,150 steps on its 54,919 clips.

    Args:
        kind: name of a published schedule of the head, "paper" or another: exactly that; "stretched": at least
            `min_steps` steps of Adam, and no fewer than the paper's, with a part of the training split held out to
            choose the stopping point; "auto": the paper's where the data set is large enough for 10,000 steps of it,
            else stretched.
        epochs: overrides the number of epochs, in whichever kind is used.
        milestones: epochs after which a published schedule divides the learning rate by 10; None takes its own.
        batch_size: clips per step; None takes the published schedule's, or 32 when stretched.
        lr: initial learning rate; None takes the published schedule's, or 1e-3 when stretched.
        weight_decay: L2 factor, decoupled for Adam; None takes the published schedule's, or 1e-4 when stretched.
        min_steps: fewest optimiser steps of a stretched schedule.
        held_out: share of the training clips, see `ifcar.pipelines.feed.held_out`; 0 holds nothing out and trains all
            the steps once.
        refit: after the stopping point is chosen, train again on the whole training split up to it.
        label_smoothing: of the cross entropy.
        precision: "fp32", or "bf16" for the matrix products of training; weights, optimiser, losses and every
            evaluation stay in fp32.
        published: the head's schedule on this data set that `kind` names, for auto and stretched the paper's; None: the
            run fills it in where it is not the common one.
    """

    kind: Annotated[
        str, Option("auto, stretched, or a published one of the head: paper, released, ….", "--schedule")
    ] = "auto"
    epochs: Annotated[int | None, Option("Passes over the training clips."), STEPS] = None
    milestones: tuple[int, ...] | None = None
    batch_size: Annotated[
        int | None,
        Option("Clips per step, over all processes.", default="as published, 72 mostly, or 32 stretched"),
        STEPS,
    ] = None
    lr: Annotated[
        float | None, Option("Learning rate.", default="as published, 1e-2 mostly, or 1e-3 stretched"), Bounds(above=0)
    ] = None
    weight_decay: Annotated[
        float | None, Option("L2 factor.", default="1e-4, where nothing else was published"), Bounds(least=0)
    ] = None
    min_steps: Annotated[int, Option("Fewest steps of a stretched schedule, which it implies."), STEPS] = 1500
    held_out: Annotated[
        float, Option("Share of training clips that choose the best weights."), Bounds(least=0, below=1)
    ] = 0.15
    refit: Annotated[
        bool, Option("Train again on all training clips up to the stopping point; implies --schedule stretched.")
    ] = True
    label_smoothing: Annotated[float, Option("Of the cross entropy."), Bounds(least=0, below=1)] = 0.0
    precision: Annotated[Literal["fp32", "bf16"], Option("fp32, or bf16 for the matrix products of training.")] = "fp32"
    published: Schedule | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.milestones is not None and self.kind == "stretched":
            raise InputError("milestones would be ignored: a stretched schedule has none; use kind paper or auto")
        found = [] if self.milestones is None else list(self.milestones)
        if found != sorted({epoch for epoch in found if epoch >= 1}):
            raise InputError(f"milestones are {found}; expected epochs from 1 on, ascending")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan(Optimisation):
    """A schedule, resolved for a number of training clips; see `Optimisation` for how weights move.

    Args:
        kind: "stretched", or the published schedule's name.
        epochs: passes over the training clips.
        steps_per_epoch: optimiser steps of a pass.
        milestones: steps from which the learning rate is divided by 10, once more at each (published).
        epochs_per_round: epochs between two evaluations, log lines and checkpoints.
        held_out: share of the training clips that choose the stopping point; 0 under a published schedule.
        steps: length in optimiser steps; None: all epochs.
        last_share: of the learning rate, where a cosine ends.
        source: of a published schedule that is not the common one.
    """

    kind: str
    epochs: int
    steps_per_epoch: int
    milestones: tuple[int, ...]
    epochs_per_round: int
    held_out: float = 0.0
    steps: int | None = None
    last_share: float = 0.0
    source: str = ""

    @property
    def num_steps(self) -> int:
        """Return the total number of optimiser steps."""
        return self.epochs * self.steps_per_epoch if self.steps is None else self.steps

    def lr_at(self, step: int, losses: Sequence[float] = ()) -> float:
        """Return the learning rate of a step, before which these were the mean training losses of each epoch."""
        rising = max(1, int(self.num_steps * self.warm_up)) if self.warm_up else 0
        if step < rising:
            return self.lr * (step + 1) / rising
        if self.decay == "steps":
            return self.lr * 0.1 ** sum(step >= m for m in self.milestones)
        if self.decay == "plateau":
            return max(self.lr * 0.1 ** num_plateaus(losses, self.patience), self.least_lr)
        share = (step - rising) / max(1, self.num_steps - rising)
        if self.decay == "linear":
            return self.lr * (1 - share)
        return self.lr * (self.last_share + (1 - self.last_share) * 0.5 * (1 + math.cos(math.pi * share)))

    def describe(self) -> str:
        """Return what is used, for people."""
        source = f" ({self.source})" if self.source else ""
        clipped = "" if self.clip_gradient is None else f", gradient norm at most {self.clip_gradient:g}"
        rates = (
            f"learning rate {self.lr:g}, weight decay {self.weight_decay:g}" + " in the gradient" * self.coupled_decay
        )
        if self.decay == "plateau":
            rates += f", rate ÷ 10 where more than {self.patience} epochs do not lower the training loss"
        return f"{self.kind} schedule{source}, {self.optimizer}, {rates}{clipped}, batch {self.batch_size}"


def num_plateaus(losses: Sequence[float], patience: int) -> int:
    """Return how often more than `patience` losses in a row were no new lowest by a share of `PROGRESS`.

    torch.optim.lr_scheduler.ReduceLROnPlateau with its defaults divides the rate as often.
    """
    lowest, waited, found = math.inf, 0, 0
    for loss in losses:
        waited = 0 if loss < lowest * (1 - PROGRESS) else waited + 1
        lowest = loss if waited == 0 else lowest
        if waited > patience:
            waited, found = 0, found + 1
    return found


PROGRESS = 1e-4
OWN_KINDS = ("auto", "stretched")  # every other kind is the name of a published schedule
OF_STRETCHED = ("min_steps", "held_out", "refit")
NUM_ROUNDS = 25
WARM_UP, LAST_SHARE = 0.05, 0.02  # of a stretched schedule
PAPER_SIZED_STEPS = 10_000  # half of what the paper's shorter schedule takes on its own data


def unused_of(stated: Collection[str], kind: str) -> list[str]:
    """Return which of the stated fields a schedule of a kind does not look at."""
    return [] if kind in OWN_KINDS else [name for name in OF_STRETCHED if name in stated]


def make_plan(config: ScheduleConfig, num_clips: int, *, reads_appearance: bool) -> Plan:
    """Resolve a schedule for `num_clips` training clips; what the config leaves open is as published."""
    paper = _published_plan(config, num_clips, reads_appearance=reads_appearance)
    if config.kind != "stretched" and (config.kind != "auto" or paper.num_steps >= PAPER_SIZED_STEPS):
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
        decay="cosine",
        last_share=LAST_SHARE,
        warm_up=WARM_UP,
        weight_decay=WEIGHT_DECAY if config.weight_decay is None else config.weight_decay,
    )


def _published_plan(config: ScheduleConfig, num_clips: int, *, reads_appearance: bool) -> Plan:
    published = config.published or common_schedule(reads_appearance=reads_appearance)
    if config.milestones is not None and published.decay != "steps":
        raise InputError(
            f"milestones would be ignored: {published.source} lowers the rate by another rule ({published.decay})"
        )
    batch_size = min(config.batch_size or published.batch_size, num_clips)
    steps_per_epoch = math.ceil(num_clips / batch_size)
    steps = None if config.epochs else published.num_steps
    epochs = config.epochs or published.epochs or math.ceil((steps or 1) / steps_per_epoch)
    in_steps = config.milestones is None and published.num_steps is not None
    milestones = published.milestones if config.milestones is None else config.milestones
    weight_decay = published.weight_decay if config.weight_decay is None else config.weight_decay
    own = replace(published, batch_size=batch_size, lr=config.lr or published.lr, weight_decay=weight_decay)
    return Plan(
        **{field.name: getattr(own, field.name) for field in fields(Optimisation)},
        kind="paper" if config.kind in OWN_KINDS else config.kind,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        milestones=milestones if in_steps else tuple(epoch * steps_per_epoch for epoch in milestones),
        epochs_per_round=1 if steps is None else max(1, epochs // NUM_ROUNDS),
        steps=steps,
        source="" if config.published is None else published.source,
    )


def for_all_clips(plan: Plan, num_clips: int) -> Plan:
    """Return the plan for the whole training split, with the same number of steps as nearly as epochs allow."""
    steps_per_epoch = math.ceil(num_clips / plan.batch_size)
    epochs = max(1, round(plan.num_steps / steps_per_epoch))
    return replace(plan, steps_per_epoch=steps_per_epoch, epochs=epochs, epochs_per_round=max(1, epochs // NUM_ROUNDS))
