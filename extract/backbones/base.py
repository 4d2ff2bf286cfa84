"""What a backbone is: its facts, its calls, and the registry of families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ifcar.errors import InputError, nearest
from ifcar.registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneSpec:
    """The facts of one backbone at one spatial stride.

    Args:
        name: registered name.
        channels: C of the feature map; 0 when no pixels are read.
        temporal_stride: frames per feature step, T′ = T / temporal_stride.
        spatial_stride: pixels per cell of the feature map.
        layer: the layer whose output is the feature map, in the published model's names.
        frame_multiple: T must be a multiple of this, and at least this.
        mean: subtracted from every RGB channel scaled to [0, 1].
        std: divides after that.
        weights_url: where the published weights lie, or None.
        license: licence of the published weights, and their origin.
        reduction: channels after a 1×1×1 convolution on top of `layer`, equal to `channels`; 0 without one.
    """

    name: str
    channels: int
    temporal_stride: int
    spatial_stride: int
    layer: str
    frame_multiple: int
    mean: float
    std: float
    weights_url: str | None
    license: str
    reduction: int = 0

    @property
    def reads_pixels(self) -> bool:
        """Whether this backbone looks at the video at all."""
        return self.channels > 0

    def reduced(self, channels: int) -> BackboneSpec:
        """Return the facts with a 1×1×1 convolution to `channels` on top; 0 leaves them as they are."""
        if not channels:
            return self
        if self.reduction or not self.reads_pixels or channels < 1:
            raise InputError(f"backbone {self.name!r} cannot be reduced to {channels} channels")
        return replace(self, channels=channels, reduction=channels)

    def num_steps(self, num_frames: int) -> int:
        """Return T′ for T = `num_frames`.

        Raises:
            InputError: T is not a positive multiple of `frame_multiple`.
        """
        if num_frames < 1 or num_frames % self.frame_multiple:
            raise InputError(
                f"backbone {self.name!r} at spatial stride {self.spatial_stride} cannot take {num_frames} frames; "
                f"expected a positive multiple of {self.frame_multiple}"
            )
        return num_frames // self.temporal_stride

    def grid_size(self, crop_size: int) -> tuple[int, int]:
        """Return (H, W) of the feature map for a square crop of `crop_size` pixels."""
        side = -(-crop_size // self.spatial_stride)
        return side, side


class Backbone(nn.Module):
    """A video network that ends in a feature map; its state-dict keys are the published checkpoint's.

    Args:
        spec: the facts of this backbone.

    Attributes:
        recomputes: whether a training pass keeps only what goes from stage to stage, and computes the rest again for
            the gradient.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.recomputes = False

    def normalise(self, frames: Tensor) -> Tensor:
        """Turn decoded frames into the network's input.

        Args:
            frames: (B, T, S, S, 3) uint8 RGB.

        Returns:
            (B, 3, T, S, S) float32, (x / 255 − mean) / std, in channels_last_3d memory layout: the frames' own
            order of bytes, so that no transposed copy is made.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
            raise InputError(
                f"frames are {frames.dtype} {tuple(frames.shape)}; expected torch.uint8 (B, T, S, S, 3) RGB"
            )
        video = frames.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.channels_last_3d)
        return video.mul_(1 / (255 * self.spec.std)).sub_(self.spec.mean / self.spec.std)

    def stages(self) -> Mapping[str, nn.Module]:
        """Return the parts that the feature map passes through, by name, in order; nothing behind it."""
        raise NotImplementedError

    def through(self, stage: nn.Module, value: Any) -> Any:
        """Run one stage, keeping its inner activations for the gradient or not, as `recomputes` says."""
        if self.recomputes and torch.is_grad_enabled() and any(p.requires_grad for p in stage.parameters()):
            return checkpoint(stage, value, use_reentrant=False)
        return stage(value)

    def freeze(self, last_stage: str | None) -> None:
        """Let gradients reach the stages behind `last_stage` (None: all of them) and nothing else of the network.

        Raises:
            InputError: there is no such stage.
        """
        stages = self.stages()
        if last_stage is not None and last_stage not in stages:
            raise InputError(
                f"backbone {self.spec.name!r} has no stage {last_stage!r}{nearest(last_stage, stages)} "
                f"Known: {', '.join(stages)}"
            )
        self.requires_grad_(False)
        frozen = last_stage is not None
        for name, stage in stages.items():
            stage.requires_grad_(not frozen)
            frozen = frozen and name != last_stage

    def forward(self, video: Tensor) -> Tensor:
        """Return the feature map (B, C, T′, H, W) of a normalised video (B, 3, T, S, S)."""
        raise NotImplementedError

    def classify(self, video: Tensor) -> Tensor:
        """Return the published classifier's logits (B, 400) over Kinetics-400 for a normalised video."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneFamily:
    """One registered backbone: its specs by spatial stride and how to build it.

    Args:
        specs: spatial stride → spec; a family without pixels has one spec, under 0.
        build: makes the uninitialised module for a spec; None when no pixels are read.
    """

    specs: Mapping[int, BackboneSpec]
    build: Callable[[BackboneSpec], Backbone] | None

    @property
    def reads_pixels(self) -> bool:
        """Whether this family looks at the video at all."""
        return self.build is not None

    def spec(self, spatial_stride: int) -> BackboneSpec:
        """Return the spec at a spatial stride; a family without pixels has the same one for every stride.

        Raises:
            InputError: the family cannot run at this stride.
        """
        if not self.reads_pixels:
            return self.specs[0]
        if spatial_stride not in self.specs:
            name = next(iter(self.specs.values())).name
            known = ", ".join(str(stride) for stride in sorted(self.specs))
            raise InputError(f"backbone {name!r} has no spatial stride {spatial_stride}; expected one of: {known}")
        return self.specs[spatial_stride]


BACKBONES: Registry[BackboneFamily] = Registry("backbone")
