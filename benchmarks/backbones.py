"""Backbones with random weights in the forms in which they run, what a batch of views is, and what it costs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from machine import WEIGHTS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.weights import draw_weights

from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.fold import channels_last, folded
from ifcar.extract.weights import load_weights

FRAMES = {"i3d_r50": 8, "slowfast_r50": 32, "i3d_inception": 16}  # of a view


def random_weights(name: str) -> str:
    """Return a file of random weights, drawn where it is not there: that takes seconds.

    It lies in the folder that the variable BENCHMARK_WEIGHTS names, or else in the working folder.
    """
    path = Path(os.environ.get(WEIGHTS, ""), f"{name}.safetensors")
    if not path.exists():
        draw_weights(_built(name), path)
    return str(path)


def backbone(device: str, name: str = "i3d_r50", crop: int = 224) -> Backbone:
    """Return a backbone with random weights."""
    net = _built(name, crop)
    load_weights(net, random_weights(name))
    return net.to(device)


def _built(name: str, crop: int = 224) -> Backbone:
    return build_backbone(resolve_backbone(name, num_frames=FRAMES[name], crop_size=crop, spatial_stride=16))


def views(device: str, batch: int, crop: int, frames: int = FRAMES["i3d_r50"]) -> Tensor:
    """Return a batch of random views."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, frames, crop, crop, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)


def as_extracted(net: Backbone, device: str, dtype: torch.dtype) -> Backbone:
    """Return the form in which `extract` runs it: folded, channels side by side."""
    return channels_last(folded(net).to(device, dtype))


def flops_a_clip(net: nn.Module, video: Tensor) -> float:
    """Return the operations of one clip, a multiplication and an addition as two."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(video)
    return float(counter.get_total_flops()) / len(video)
