"""A backbone with a 1×1×1 convolution on its last feature map, trained together with it.

Source: Wang and Gupta 2018, §6: one more 1×1×1 convolution on top of I3D takes 2048 channels to 512; Yan et al. 2020
build on the same features. It is linear: no normalisation and no ReLU follow it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ifcar.extract.backbones.base import Backbone

STAGE = "reduction"


class ReducedBackbone(Backbone):
    """`inner`, then the reduction; weights `inner.KEY` for each of its keys, and `reduction.weight` and `.bias`.

    Args:
        inner: a backbone without a reduction; it is used, not copied.
        channels: of the new feature map.
    """

    def __init__(self, inner: Backbone, channels: int) -> None:
        super().__init__(inner.spec.reduced(channels))
        self.inner = inner
        with torch.random.fork_rng(devices=[]):
            self.reduction = nn.Conv3d(inner.spec.channels, channels, 1)

    def draw_reduction(self, seed: int) -> None:
        """Give the reduction torch's default random weights, drawn with this seed; no global generator moves."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reduction.reset_parameters()

    def stages(self) -> Mapping[str, nn.Module]:
        """Return the inner stages, then the reduction."""
        return {**self.inner.stages(), STAGE: self.reduction}

    def forward(self, video: Tensor) -> Tensor:
        """Return the reduced feature map (B, channels, T′, H, W) of a normalised video (B, 3, T, S, S)."""
        self.inner.recomputes = self.recomputes
        reduced: Tensor = self.reduction(self.inner(video))
        return reduced

    def classify(self, video: Tensor) -> Tensor:
        """Return the inner network's logits (B, 400); the reduction has no part in them."""
        return self.inner.classify(video)
