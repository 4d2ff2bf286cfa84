"""Published trainings of heads: what a paper or its code says on optimiser, rates, epochs and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ifcar.errors import InputError

ANY = ""  # a data set of no schedule of its own


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimisation:
    """How a head's weights move.

    Args:
        optimizer: "sgd", or "adam" with decoupled weight decay (AdamW; without weight decay it is Adam).
        coupled_decay: Adam's weight decay is a part of the gradient in place of a factor of the weights.
        lr: initial learning rate.
        decay: "steps" at the milestones; "linear", or half a "cosine", to zero over all steps after the warm-up;
            "plateau": by 10 when the mean training loss has not fallen for more than `patience` epochs.
        patience: of a plateau, see `ifcar.pipelines.runs.schedule.num_plateaus`.
        least_lr: which a plateau does not go below.
        warm_up: share of all steps over which the learning rate rises.
        batch_size: clips per step.
        momentum: of SGD.
        weight_decay: L2 factor; decoupled for Adam.
        decay_vectors: weight decay moves parameters of one dimension (biases, gains) too; False for Adam only.
        clip_gradient: largest norm of the gradient over all trained parameters of the head, or None.
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 1e-2
    decay: Literal["steps", "linear", "cosine", "plateau"] = "steps"
    warm_up: float = 0.0
    batch_size: int = 72
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_vectors: bool = True
    clip_gradient: float | None = None
    coupled_decay: bool = False
    patience: int = 0
    least_lr: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule(Optimisation):
    """How a head was trained where it was published.

    Args:
        source: paper and section.
        epochs: passes over the training clips; None where steps are stated.
        num_steps: optimiser steps; None where passes are stated.
        milestones: epochs, or steps where these are stated, after which the learning rate is divided by 10.
    """

    source: str
    epochs: int | None = None
    num_steps: int | None = None
    milestones: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.num_steps is None):
            raise InputError(f"schedule of {self.source}: state epochs or num_steps, one of the two")
        if self.optimizer != "adam" and not self.decay_vectors:
            raise InputError(f"schedule of {self.source}: decay_vectors false needs the optimiser adam")
        if self.coupled_decay and (self.optimizer != "adam" or not self.decay_vectors):
            raise InputError(f"schedule of {self.source}: coupled_decay needs the optimiser adam and decay_vectors")
        if (self.decay == "plateau") != (self.patience > 0) or (self.decay == "plateau" and self.epochs is None):
            raise InputError(f"schedule of {self.source}: patience belongs to the decay plateau, which is of epochs")
        if not 0 <= self.least_lr < self.lr or (self.least_lr and self.decay != "plateau"):
            raise InputError(f"schedule of {self.source}: least_lr belongs to the decay plateau, below lr")
        counts = [count for count in (self.epochs, self.num_steps, self.batch_size) if count is not None]
        if min(counts) < 1 or self.lr <= 0 or self.weight_decay < 0:
            raise InputError(f"schedule of {self.source}: epochs, steps, batch size and rates must be positive")
        length = self.epochs or self.num_steps or 0
        if any(not 0 < milestone < length for milestone in self.milestones):
            raise InputError(
                f"schedule of {self.source}: milestones {self.milestones} lie outside its length, {length}"
            )
        if not 0 <= self.warm_up < 1 or (self.clip_gradient is not None and self.clip_gradient <= 0):
            raise InputError(f"schedule of {self.source}: expected a warm-up in [0, 1) and a positive clip_gradient")


Schedules = Mapping[str, Mapping[str, Schedule]]
"""By name, then by data set, `ANY` for every other."""

YAN_APPEARANCE = Schedule(source="Yan et al. 2020, §4.1–4.2", epochs=30, milestones=(5, 10, 15, 20, 25))
YAN_LAYOUT = Schedule(source="Yan et al. 2020, §4.1–4.2, without appearance", epochs=50, milestones=(35, 45))
YAN_CHARADES = Schedule(source="Yan et al. 2020, §4.3", epochs=50, milestones=(35, 45))
ZHANG_CHARADES = Schedule(source="Zhang et al., §3.7", lr=3.5e-2, weight_decay=1.25e-5, batch_size=12, num_steps=50_000)
ZHANG: Schedules = {"paper": {"charades": ZHANG_CHARADES}}
WANG_GUPTA = Schedule(
    source="Wang and Gupta 2018, §6, on fixed features",
    lr=1.25e-3,
    num_steps=100_000,
    milestones=(90_000,),
    batch_size=8,
)
YAN_RELEASED: Schedules = {
    "released": {
        ANY: Schedule(source="released code of Yan et al. 2020", epochs=20, milestones=(5, 10, 15), clip_gradient=5.0)
    }
}
VJEPA2_PROBE: Schedules = {
    "paper": {
        ANY: Schedule(
            source="evaluation of V-JEPA 2, one of its 20 pairs of rate and weight decay",
            optimizer="adam",
            lr=1e-3,
            epochs=20,
            decay="cosine",
            weight_decay=0.1,
        )
    }
}
RADEVSKI: Schedules = {
    "paper": {
        ANY: Schedule(
            source="released code of Radevski et al. 2021",
            optimizer="adam",
            lr=5e-5,
            epochs=20,
            decay="linear",
            warm_up=0.1,
            batch_size=64,
            weight_decay=1e-3,
            decay_vectors=False,
            clip_gradient=5.0,
        )
    }
}
RAI = Schedule(
    source="released code of Rai et al. 2021",
    optimizer="adam",
    coupled_decay=True,
    lr=1e-3,
    epochs=100,
    decay="plateau",
    patience=10,
    least_lr=1e-5,
    batch_size=16,
    weight_decay=1e-5,
)
CCAU: Schedules = {
    "paper": {ANY: RAI},
    "released": {ANY: RAI},
}  # the paper states none; the code watches a held-out loss


def common_schedule(*, reads_appearance: bool) -> Schedule:
    """Return the training of heads that name none of their own, by the role of the arrays that they read."""
    return YAN_APPEARANCE if reads_appearance else YAN_LAYOUT


def schedules_on(own: Schedules, dataset: str, *, reads_appearance: bool) -> dict[str, Schedule]:
    """Return the schedules by name of a head on a data set, of its own and else the common one."""
    paper = YAN_CHARADES if dataset == "charades" else common_schedule(reads_appearance=reads_appearance)
    found = {name: by_data.get(dataset, by_data.get(ANY)) for name, by_data in own.items()}
    return {"paper": paper, **{name: schedule for name, schedule in found.items() if schedule is not None}}
