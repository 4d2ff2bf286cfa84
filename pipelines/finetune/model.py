"""Backbone, RoIAlign and head as one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.random_init import BATCH_NORMS
from ifcar.extract.backbones.reduced import STAGE as REDUCTION
from ifcar.extract.roi import arrays_of_maps, pooled_with
from ifcar.extract.view_options import PooledMode
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.heads.noise import Noise
from ifcar.heads.rows import RowNorm
from ifcar.pipelines.feed.subjects import ask_about

_NORMS = (*BATCH_NORMS, RowNorm)


class LiveModel(nn.Module):
    """A head on live features, those that a cache would hold, before they are rounded to float16.

    Args:
        backbone: gives the feature maps; the parameters that train are those that require a gradient.
        head: any registered head; it is given the same batch object as from a cache.
        reads: names of the arrays that the head reads.
        spec: the arrays of the cache that the backbone would make.
        pooled: how instances are pooled.
        keeps_statistics: normalisation uses its running statistics and leaves them, in training too.
        precision: "bf16" computes the backbone's and the head's products in bfloat16.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        reads: Sequence[str],
        spec: CacheSpec,
        pooled: PooledMode,
        *,
        keeps_statistics: bool,
        precision: str,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.reads, self.pooled, self.spec = tuple(reads), pooled, spec
        made = spec.names("feature")
        # pooling needs its own, whatever the head reads
        self.of_view = tuple(dict.fromkeys((*pooled_with(pooled), *(name for name in reads if name not in made))))
        self.keeps_statistics, self.precision = keeps_statistics, precision

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation; where statistics are kept, norms stay in evaluation."""
        super().train(mode)
        if self.keeps_statistics:
            for module in self.modules():
                if isinstance(module, _NORMS):
                    module.eval()
        return self

    def forward(
        self,
        inputs: Tensor,
        of_view: Mapping[str, Tensor],
        order: Tensor | None = None,
        views: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score views.

        Args:
            inputs: what the backbone reads: (B, T, S, S, 3) uint8 RGB where that is pixels.
            of_view: the arrays called `self.of_view`, each (B, …).
            order: (n, N) slots in which an instance of a view is asked about, see `slot_order`; None asks about views.
            views: (n,) which view each of these is of; None: one of each view.

        Returns:
            logits (B, O, K), or (n, O, K), float32 of every output that is trained, and the head's auxiliary losses.
        """
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            maps = self.backbone.checked(self.backbone(self.backbone.normalise(inputs)))
            features = arrays_of_maps(maps, of_view, self.pooled, self.reads)
            out = self.head(ask_about(order, self.batch(of_view, features), self.spec, views))
        return out.trained().float(), {name: loss.float() for name, loss in out.losses.items()}

    def batch(self, of_view: Mapping[str, Tensor], features: Mapping[str, Tensor]) -> InstanceBatch:
        """Return what the head reads, out of the views' arrays and the features made of their pixels."""
        arrays = {**of_view, **features}
        return InstanceBatch({name: arrays[name] for name in self.reads})

    def set_noise(self, noise: Mapping[str, Tensor], first: int, end: int) -> None:
        """Give the head's layers that draw their noise (1, B, …) for examples first … end − 1 of a batch."""
        for name, layer in self.head.named_modules():
            if isinstance(layer, Noise):
                layer.noise = noise[f"{name}.noise"][0, first:end]


def freeze(backbone: Backbone, last_stage: str | None, *, norms: bool) -> None:
    """Freeze the backbone up to a stage, and its normalisation everywhere where `norms` is True."""
    backbone.freeze(last_stage)
    for module in backbone.modules() if norms else ():
        if isinstance(module, _NORMS):
            module.requires_grad_(False)


def make_optimizer(model: LiveModel, lr: float, head_lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9 over the backbone's trained parameters and, at the head's rate, all else.

    A reduction counts to the head: both are new where the rest of the backbone is not.
    """
    tuned: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_tuned = name.startswith("backbone.") and not name.startswith(f"backbone.{REDUCTION}.")
            (tuned if is_tuned else new).append(parameter)
    groups = [{"params": tuned, "rate": lr}, {"params": new, "rate": head_lr}]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=lr, momentum=0.9, weight_decay=weight_decay)
