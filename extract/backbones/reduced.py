"""A backbone with a 1×1×1 convolution on its feature maps, trained together with it.

Source: Wang and Gupta 2018, §6: one more 1×1×1 convolution on top of I3D takes 2048 channels to 512; Yan et al. 2020
build on the same features. It is linear: no normalisation and no ReLU follow it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ifcar.extract.backbones.base import Backbone, Maps

STAGE = "reduction"


class ReducedBackbone(Backbone):
    """`inner`, then the reduction; weights `inner.KEY` for each of its keys, and `reduction.weight` and `.bias`.

    Args:
        inner: a backbone without a reduction; it is used, not copied.
        channels: of the new feature maps.
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

    def forward(self, video: Tensor) -> Maps:
        """Return the inner maps, each reduced to (B, channels, T′, H, W)."""
        self.inner.recomputes = self.recomputes
        return {name: self.reduction(inner) for name, inner in self.inner(video).items()}

    def normalise(self, inputs: Tensor) -> Tensor:
        """Turn what was decoded into the inner network's input."""
        return self.inner.normalise(inputs)

    def run_every_layer(self, video: Tensor) -> object:
        """Run the inner network with all its layers; the reduction has no statistics."""
        return self.inner.run_every_layer(video)
