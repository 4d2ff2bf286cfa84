"""2-D networks that see every frame by itself, so that T′ = T; torchvision's, with what it publishes for them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ifcar.extract.backbones.base import Backbone, Maps
from ifcar.extract.backbones.spec import INSTANCES, Normalisation, PublishedWeights


class PerFrame(Backbone):
    """A backbone whose stages a frame goes through one after another."""

    def forward(self, video: Tensor) -> Maps:
        """Return the last stage's output (B, C, T, H, W) for a normalised video (B, 3, T, S, S)."""
        frames = frames_of(video)
        for stage in self.stages().values():
            frames = self.through(stage, frames)
        return {INSTANCES: frames.view(video.shape[0], -1, *frames.shape[1:]).transpose(1, 2)}

    def adopt(self, network: nn.Module) -> None:
        """Take over the children of a network under their own names, and with them its state-dict keys."""
        for name, child in network.named_children():
            self.add_module(name, child)


def frames_of(video: Tensor) -> Tensor:
    """Return (B · T, 3, S, S) for (B, 3, T, S, S): as they lie in memory, channels last."""
    return video.transpose(1, 2).flatten(0, 1)


def torchvision_weights(name: str, trained_on: str = "ImageNet-1k") -> dict[str, PublishedWeights]:
    """Return what torchvision publishes for one of its models: tag, such as "imagenet1k-v1", → weights, oldest first.

    A file's name ends in the first digits of its SHA-256.
    """
    from torchvision.models import get_model_weights

    published: dict[str, PublishedWeights] = {}
    for entry in get_model_weights(name):
        seen = entry.transforms()
        published[entry.name.lower().replace("_", "-")] = PublishedWeights(
            address=entry.url,
            sha256=Path(entry.url).stem.rpartition("-")[2],
            license=f"BSD-3-Clause (torchvision, trained on {trained_on})",
            normalisation=Normalisation(mean=tuple(seen.mean), std=tuple(seen.std)),
        )
    return published
