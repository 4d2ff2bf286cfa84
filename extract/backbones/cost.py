"""What a backbone costs: multiply-adds of a view, counted without computing them, and bytes of what is kept of it."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ifcar.extract.backbones.catalog import build_backbone
from ifcar.extract.backbones.spec import BackboneSpec

HALF = 2  # bytes of a stored number


def multiply_adds(spec: BackboneSpec) -> int:
    """Return the multiply-adds of one view: of convolutions, matrix products and attention, as PyTorch counts them.

    The network is built on PyTorch's meta device, where a number takes no memory and no time.
    """
    view = (spec.num_frames, spec.crop_size, spec.crop_size)
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network = build_backbone(spec)
        network(torch.empty(1, 3, *view))
    return int(counter.get_total_flops()) // 2


def instance_bytes(spec: BackboneSpec, *, num_instances: int = 4, pooled: int = 3) -> int:
    """Return the bytes of a view's instance features, (T′, N, C, P, P) in float16."""
    return HALF * spec.num_steps * num_instances * spec.channels * pooled**2


def grid_bytes(spec: BackboneSpec) -> int:
    """Return the bytes of a view's feature map, (T′, C, H, W) in float16; 0 where nothing is read."""
    height, width = spec.grid_size or (0, 0)
    return HALF * spec.num_steps * spec.channels * height * width
