"""A backbone in the form in which it only runs: batch normalisation folded into the convolution before it.

In evaluation mode y = γ (W x + b − μ) / √(σ² + ε) + β is itself a convolution, with weights γ W / √(σ² + ε): the same
function with one pass over the activations less for every layer.
"""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.random_init import BATCH_NORMS, CONVOLUTIONS

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
B = TypeVar("B", bound=Backbone)
M = TypeVar("M", bound=nn.Module)


def folded(backbone: B) -> B:
    """Return a copy in evaluation mode whose convolutions hold the normalisation that follows them.

    A convolution, or a sequence that ends in one, and the normalisation of its rank and width that its module names
    right after it belong together: so a module names the two one after the other if, and only if, it runs them so. The
    copy's state-dict keys are no
    longer the published ones.
    """
    copied = copy.deepcopy(backbone).eval()
    for module in copied.modules():
        for (conv_name, conv), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
            holder = module
            while isinstance(conv, nn.Sequential) and len(conv):
                holder, conv_name, conv = conv, str(len(conv) - 1), conv[-1]
            for convolution, batch_norm in zip(CONVOLUTIONS, BATCH_NORMS, strict=True):
                if isinstance(conv, convolution) and isinstance(norm, batch_norm):
                    setattr(holder, conv_name, fuse_conv_bn_eval(conv, norm))
                    setattr(module, norm_name, nn.Identity())
    return copied


def channels_last(module: M) -> M:
    """Lay out every parameter of rank 5 (3-D convolutions) or 4 (2-D) with its channels side by side, in place."""
    for parameter in module.parameters():
        if parameter.ndim in _LAYOUTS:
            parameter.data = parameter.data.to(memory_format=_LAYOUTS[parameter.ndim])
    return module
