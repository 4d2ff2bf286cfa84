"""Random weights for any backbone: reproducible, well conditioned, and drawn without the global generators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from ifcar.extract.backbones.base import Backbone

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ENDS_BRANCH = "block_final_bn"
"""Attribute, True, of the last norm of a residual branch: PyTorchVideo's name, which other families set as well."""
_CALIBRATION_CLIPS = 8
_CALIBRATION_SIZE = 112
_NORM_SHIFT = 1.0
_BRANCH_SCALE = 0.1


def randomise(backbone: Backbone, seed: int) -> None:
    """Give `backbone` random weights whose deep features are well conditioned and tell appearances apart.

    Convolutions get He's normal initialisation (variance 2 / fan-in), linear layers variance 1 / fan-in, biases
    0, BatchNorm shift 1 and scale 1, but scale 0.1 at the end of a residual branch. Then one forward pass over 8
    synthetic videos (drifting coloured blobs on drifting noise of several scales, 112 × 112) sets BatchNorm's
    running mean and variance to the statistics of that batch; without this a deep random network's features
    explode or die. All draws come from generators seeded with `seed`; the global generators are neither read nor
    moved. The same seed gives the same weights; the running statistics agree across machines and thread counts
    up to float rounding.

    Why not scale 1 and shift 0: such a network multiplies every small difference layer by layer. Measured on
    i3d_r50 (stride 16, 8 × 112 × 112): bfloat16 changed its features by 40 %, with the values here by 1.1 %; and a
    ridge classifier of 12 textures on pooled boxes of unseen videos rose from chance (0.06) to 0.43. i3d_inception
    has no residual branches and stays near chance (0.10): use its published weights.

    Args:
        backbone: of convolutions, linear layers and batch or layer norms; it ends in evaluation mode.
        seed: seed of weights and videos.

    Raises:
        TypeError: the network has parameters of another kind, so that its family must initialise them itself.
    """
    generator = torch.Generator().manual_seed(seed)
    norms: list[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d] = []
    with torch.no_grad():
        for path, module in backbone.named_modules():
            if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
                gain = 1.0 if isinstance(module, nn.Linear) else 2.0
                std = math.sqrt(gain / module.weight[0].numel())
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, BATCH_NORMS):
                module.reset_running_stats()
                nn.init.constant_(module.weight, _BRANCH_SCALE if getattr(module, ENDS_BRANCH, False) else 1.0)
                nn.init.constant_(module.bias, _NORM_SHIFT)
                norms.append(module)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif any(True for _ in module.parameters(recurse=False)):
                raise TypeError(
                    f"backbone {backbone.spec.name!r}: {path} ({type(module).__name__}) has parameters that He's "
                    "initialisation does not know; override `initialise`"
                )
        backbone.eval()
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = None  # the plain average over batches, here of one
        num_frames = 2 * max(4, backbone.spec.frame_multiple)
        frames = synthetic_videos(_CALIBRATION_CLIPS, num_frames, _CALIBRATION_SIZE, generator)
        device = next(backbone.parameters()).device
        backbone.run_every_layer(backbone.normalise(frames.to(device)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        backbone.eval()


def synthetic_videos(num_clips: int, num_frames: int, size: int, generator: torch.Generator) -> Tensor:
    """Return smooth random videos: three drifting blobs over drifting noise of several scales.

    Args:
        num_clips: B.
        num_frames: T.
        size: S in pixels.
        generator: source of all draws, on the CPU.

    Returns:
        (B, T, S, S, 3) uint8.
    """
    shape = (num_clips, num_frames, 3, size, size)
    video = torch.rand((num_clips, 1, 3, 1, 1), generator=generator).expand(shape).clone()
    for cells, strength in ((3, 0.3), (12, 0.15), (size // 2, 0.08)):
        # A larger noise picture than the frame, over which the frame's window drifts.
        noise = torch.randn((num_clips, 3, cells + 2, cells + 2), generator=generator) * strength
        picture = F.interpolate(noise, size=(size + num_frames,) * 2, mode="bilinear", align_corners=False)
        for frame in range(num_frames):
            video[:, frame] += picture[:, :, frame : frame + size, frame : frame + size]
    axis = (torch.arange(size) + 0.5) / size
    time = torch.linspace(0, 1, num_frames)[None, :, None]
    for _ in range(3):
        start, drift = (torch.rand((num_clips, 1, 2), generator=generator) for _ in range(2))
        radius, colour = (torch.rand((num_clips, count), generator=generator) for count in (1, 3))
        centre = start + (drift - 0.5) * time  # (B, T, 2)
        bumps = torch.exp(-((axis - centre[..., None]) ** 2) / (0.005 + 0.04 * radius[..., None, None]))  # (B, T, 2, S)
        mask = (bumps[:, :, 1, :, None] * bumps[:, :, 0, None, :])[:, :, None]  # (B, T, 1, S, S)
        video = video * (1 - mask) + colour[:, None, :, None, None] * mask
    return (video.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous()
