"""A backbone in the form in which it only runs: batch normalisation folded into the convolution before it.

In evaluation mode y = γ (W x + b − μ) / √(σ² + ε) + β is itself a convolution, with weights γ W / √(σ² + ε): the same
function with one pass over the activations less for every layer.
"""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ifcar.extract.backbones.base import Backbone

B = TypeVar("B", bound=Backbone)


def folded(backbone: B) -> B:
    """Return a copy in evaluation mode whose convolutions hold the normalisation that follows them.

    A convolution and the normalisation that its module names right after it belong together, as they do in every
    backbone here; the copy's state-dict keys are no longer the published ones.
    """
    copied = copy.deepcopy(backbone).eval()
    for module in copied.modules():
        for (conv_name, conv), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return copied
