"""What fine-tuning is made of, and everything that changes while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.extract.decoded_views import ViewDataset
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.finetune.data import BatchSampler, TrainingViews
from ifcar.pipelines.finetune.distributed import Group
from ifcar.pipelines.finetune.model import LiveModel
from ifcar.pipelines.runs.live import LivePlan
from ifcar.pipelines.scoring.pooling import Pool
from ifcar.pipelines.training.trainer import RunState


@dataclass(kw_only=True)
class LiveState(RunState):
    """Everything that changes while a model trains; a checkpoint holds this, the model and the optimiser.

    Args:
        step: optimiser steps done.
        sums: losses of the epoch so far, each times its clips, and "n", the clips.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LiveTrainer:
    """What a fine-tuning is made of.

    Args:
        model: backbone and head.
        spec: dimensions of the features, those of the cache that the backbone would make.
        network: the same, or DistributedDataParallel around it.
        optimizer: each group's "rate" is its learning rate before the plan's factor.
        plan: the steps.
        sampler: who computes what when.
        views: new views of training clips.
        plain_views: the views of a cache, by row.
        examples: the clips trained on.
        held_out: the clips that choose the best weights, or None.
        notes: one line on everything in which the training is not what was asked for.
        group: the processes.
        seed: of order, views and dropout.
        aux_weights: weight of each auxiliary loss.
        label_smoothing: of the cross entropy.
        micro_batch: clips at once, at most.
        clip_gradient: largest norm of the gradient, or None.
        pool: how the scores of a clip's views become one.
        num_workers: decoding processes of this process.
        clip_ids: names of clips.
        noted: clip id → `Decoded.note`, of the clips scored so far.
    """

    model: LiveModel
    spec: CacheSpec
    network: nn.Module
    optimizer: torch.optim.Optimizer
    plan: LivePlan
    sampler: BatchSampler
    views: TrainingViews
    plain_views: ViewDataset
    examples: Examples
    held_out: Examples | None
    notes: Sequence[str]
    group: Group
    seed: int
    aux_weights: Mapping[str, float]
    label_smoothing: float
    micro_batch: int
    clip_gradient: float | None
    pool: Pool
    num_workers: int
    clip_ids: list[str]
    noted: dict[str, str] = field(default_factory=dict)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the model's state, in this machine's memory."""
        return {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}
