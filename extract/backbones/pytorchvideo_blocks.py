"""Getting PyTorchVideo's ResNets ready for use: quiet, reproducible building and plain integer strides."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_SIZE_FIELDS = ("kernel_size", "stride", "padding", "dilation")


def build_blocks(build: Callable[[], Any]) -> nn.ModuleList:
    """Return the `blocks` of the PyTorchVideo network that `build` makes, with every size a built-in int.

    PyTorchVideo computes some strides with numpy; such integers break torch.compile's graph. Its own
    initialisation draws from the global generator, whose state is put back afterwards.

    Args:
        build: imports from PyTorchVideo and makes the network.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # Importing pytorchvideo.models uses torch.jit.script, which today's torch deprecates.
        warnings.simplefilter("ignore")
        blocks: nn.ModuleList = build().blocks
    for module in blocks.modules():
        if isinstance(module, nn.Conv3d | nn.MaxPool3d | nn.AvgPool3d):
            for field in _SIZE_FIELDS:
                value = getattr(module, field, None)
                if isinstance(value, tuple | list):
                    setattr(module, field, tuple(int(size) for size in value))
    return blocks
