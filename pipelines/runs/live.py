"""Options of training the backbone, their published presets, and the steps that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.errors import InputError
from ifcar.extract.view_options import CroppedViews, Cropping, Framing
from ifcar.pipelines.extraction.config import FeatureConfig
from ifcar.pipelines.runs.schedule import WEIGHT_DECAY
from ifcar.pipelines.scoring.pooling import Pool

Preset = Literal["paper", "wang-gupta"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveData(FeatureConfig, CroppedViews):
    """What the backbone sees, and what is pooled from its feature map; every epoch draws new augmented views."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveConfig:
    """How the backbone is trained; learning rate, epochs, batch size and precision stand in the run's `ScheduleConfig`.

    Args:
        data: what the backbone sees.
        weights_identity: of what it begins with; filled in by the run.
        boxes_identity: SHA-256 of the file of boxes that the data is seen with; filled in by the run.
        reduction: channels of the 1×1×1 convolution on the last feature map, 0 for none; None keeps that of the
            weights file and puts one of 512 channels on weights without (Wang and Gupta 2018, §6; Yan et al. 2020).
        batch_norm: "frozen": normalisation in backbone and head keeps its running statistics, the backbone's also its
            gains and shifts (Wang and Gupta 2018, §6); "train": all of it moves, each micro-batch by itself.
        freeze_to: the last stage of the backbone that stays as it is, or None.
        num_steps: optimiser steps, in place of a number of epochs.
        milestones: shares of the steps after which the learning rates are divided by 10.
        warm_up: steps over which the learning rates rise from near 0.
        head_lr: learning rate of the head and of the reduction; None takes the backbone's.
        micro_batch: clips at once in each process; a batch is the sum of its micro-batches. None: the whole batch.
        clip_gradient: largest norm of the gradient, or None.
        pool: how the scores of a clip's views become one, see `ifcar.pipelines.scoring.pooling.pool_views`.
        recompute: keep only what goes between the backbone's stages, and compute the rest again for the gradient.
        base: the run whose head is trained on, or None for a new one.
        base_id: its id; filled in by the run.
    """

    data: LiveData
    weights_identity: str = ""
    boxes_identity: str = ""
    reduction: Annotated[int | None, Option("Channels of the 1×1×1 convolution on top; 0: none."), Bounds(least=0)] = (
        None
    )
    batch_norm: Annotated[
        Literal["frozen", "train"], Option("frozen, or train: statistics move, one process only.")
    ] = "frozen"
    freeze_to: Annotated[str | None, Option("Last stage that stays as it is: res3, Mixed_3c, ….")] = None
    num_steps: Annotated[int | None, Option("Optimiser steps, in place of --epochs.", "--steps"), Bounds(least=1)] = (
        None
    )
    milestones: tuple[float, ...] = ()
    warm_up: Annotated[int, Option("Steps over which the learning rates rise."), Bounds(least=0)] = 0
    head_lr: Annotated[float | None, Option("Learning rate of head and reduction; default: --lr."), Bounds(above=0)] = (
        None
    )
    micro_batch: Annotated[
        int | None, Option("Clips at once in each process, where memory is short; same gradients."), Bounds(least=1)
    ] = None
    clip_gradient: Annotated[float | None, Option("Largest norm of the gradient."), Bounds(above=0)] = None
    recompute: Annotated[bool, Option("Gradient checkpointing: less memory, a third more time.", "--checkpointing")] = (
        False
    )
    pool: Annotated[Pool, Option("Over a tested clip's views: mean of logits, or max or sum of scores.")] = "mean"
    base: Path | None = None
    base_id: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not all(0 < share < 1 for share in self.milestones):
            raise InputError(f"milestones are {list(self.milestones)}; expected shares of the steps between 0 and 1")
        if self.recompute and self.batch_norm == "train":
            raise InputError("recomputing would count a batch's statistics twice; use batch_norm frozen with it")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A published training of the backbone.

    Args:
        source: paper and section.
        lr: learning rate.
        batch_size: clips per step.
        epochs: passes, or None where steps are stated.
        num_steps: steps, or None where passes are stated.
        milestones: see `LiveConfig`.
        frames: T.
        framing: of plain views.
        views: V by dataset, "" for every other.
        sampling_fps: sampled frames per second; None samples as the dataset does.
        pool: of a tested clip's views.
        cropping: of augmented views.
    """

    source: str
    lr: float
    batch_size: int
    epochs: int | None = None
    num_steps: int | None = None
    milestones: tuple[float, ...] = ()
    frames: int = 8
    framing: Framing = "stretch"
    views: Mapping[str, int] = field(default_factory=lambda: {"": 1})
    sampling_fps: float | None = None
    pool: Pool = "mean"
    cropping: Cropping = "area"


_EVERY_FIFTH: Final = tuple(k / 6 for k in range(1, 6))  # epochs 5, 10, …, 25 of 30
_YAN: Final = Published(source="Yan et al. 2020, §4.1–4.2", lr=1e-2, batch_size=72, epochs=30, milestones=_EVERY_FIFTH)
I3D_PRESETS: Final[Mapping[str, Published]] = {
    "paper": _YAN,
    "wang-gupta": Published(
        source="Wang and Gupta 2018, §6",
        lr=0.00125,
        batch_size=8,
        num_steps=100_000,
        milestones=(0.9,),
        frames=32,
        framing="three-crops",
        views={"charades": 3 * 10, "": 3 * 2},
        sampling_fps=6.0,
        pool="max",
        cropping="scale-jitter",
    ),
}
JOINT_PRESETS: Final[Mapping[str, Published]] = {
    "paper": _YAN,
    "wang-gupta": Published(
        source="Wang and Gupta 2018, §6: backbone and head together, at the reduced learning rate",
        lr=0.000125,
        batch_size=8,
        num_steps=30_000,
        pool="max",
        cropping="scale-jitter",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LivePlan:
    """The steps of a fine-tuning, resolved for a number of clips.

    Args:
        num_steps: optimiser steps.
        steps_per_epoch: steps of a pass over the training clips.
        batch_size: clips per step, over all processes.
        lr: of the backbone.
        head_lr: of the head.
        weight_decay: L2 factor of both.
        milestones: steps from which the rates are a tenth.
        warm_up: steps of rising rates.
    """

    num_steps: int
    steps_per_epoch: int
    batch_size: int
    lr: float
    head_lr: float
    weight_decay: float = WEIGHT_DECAY
    milestones: tuple[int, ...] = field(default_factory=tuple)
    warm_up: int = 0

    def factor_at(self, step: int) -> float:
        """Return what both learning rates are multiplied by at a step."""
        rise = min(1.0, (step + 1) / (self.warm_up + 1))
        return rise * 0.1 ** sum(step >= milestone for milestone in self.milestones)
