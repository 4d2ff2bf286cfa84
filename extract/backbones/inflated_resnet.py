"""`inflated-resnet18` and `inflated-resnet50`: torchvision's ResNets with some kernels spread over time.

Source: Baradel et al. 2018, "Object Level Visual Reasoning in Videos", §4 and Table 5; Xie et al. 2017 for 2.5-D
kernels, a 2-D one and then one in time; He et al. 2016. Architecture (stride in the 3 × 3 convolution) and ImageNet
weights: torchvision. Nothing strides over time. Shapes for T × S × S: the frame map, layer4, (C, T, S/32, S/32), and
the instance map, a twin of layer4 with stride 1 and no dilation, (C, T, S/16, S/16); C is 512 or 2048. The paper's text
has the two sizes swapped. Spatial stride 32 leaves the twin out: one map for both uses.

`--set inflate=CONV1,LAYER1,LAYER2,LAYER3,LAYER4` says which block is 2D, 2.5D or 3D:

- 2D: kernels (1, k, k).
- 2.5D: behind each 3 × 3 convolution (of a bottleneck: its one) and behind conv1 a convolution (3, 1, 1).
- 3D: the same convolutions with 3 steps in time.

ImageNet's 2-D weights go to the middle of a kernel's steps, zeros beside them; a convolution in time starts as the
identity. So the network begins as the 2-D one on every frame by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.errors import InputError
from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.per_frame import torchvision_weights
from ifcar.extract.backbones.random_init import ENDS_BRANCH
from ifcar.extract.backbones.spec import FRAMES, INSTANCES, BackboneRequest, BackboneSpec, PublishedWeights
from ifcar.extract.backbones.undrawn import undrawn

_PREFIX = "inflated-"
_KINDS = ("2D", "2.5D", "3D")
_NUM_CLASSES = 1000
_WIDTHS = (64, 128, 256, 512)
_NUM_BLOCKS: Final = {"inflated-resnet18": (2, 2, 2, 2), "inflated-resnet50": (3, 4, 6, 3)}
TWIN = "layer4_instances"


@dataclass(frozen=True, kw_only=True, slots=True)
class InflatedConfig:
    """Which blocks see more than one frame.

    Args:
        inflate: of conv1 and layer1 to layer4, each 2D, 2.5D or 3D, with commas between. Paper (§4): conv1 and layer4
            2.5D; released code: 2D,2D,2D,2D,2.5D.
        instances: of the instances' twin of layer4: "same" as layer4, or 2D (released code), 2.5D, 3D.
    """

    inflate: str = "2.5D,2D,2D,2D,2.5D"
    instances: str = "same"

    def __post_init__(self) -> None:
        kinds = self.inflate.split(",")
        if len(kinds) != 1 + len(_WIDTHS) or not {*kinds} <= {*_KINDS}:
            raise InputError(
                f"inflate is {self.inflate!r:.80}; expected five of {', '.join(_KINDS)} with commas between, of conv1 "
                "and layer1 to layer4, such as 2.5D,2D,2D,2D,2.5D"
            )
        if self.instances not in ("same", *_KINDS):
            raise InputError(f"instances is {self.instances!r:.80}; expected one of same, {', '.join(_KINDS)}")

    def kinds(self) -> tuple[str, ...]:
        """Return the kind of conv1, of layer1 to layer4, and of the twin."""
        kinds = tuple(self.inflate.split(","))
        return (*kinds, kinds[-1] if self.instances == "same" else self.instances)


def _spatial(in_dim: int, out_dim: int, kind: str, side: int = 3, stride: int = 1) -> nn.Conv3d:
    """Return a convolution over space, of 3 steps in time where its kind is 3D."""
    steps = 3 if kind == "3D" else 1
    padding = (steps // 2, side // 2, side // 2)
    return nn.Conv3d(in_dim, out_dim, (steps, side, side), (1, stride, stride), padding, bias=False)


def _temporal(width: int) -> nn.Conv3d:
    """Return a convolution over 3 steps in time."""
    return nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False)


def _shortcut(in_dim: int, out_dim: int, stride: int) -> nn.Sequential | None:
    if in_dim == out_dim and stride == 1:
        return None
    return nn.Sequential(_spatial(in_dim, out_dim, "2D", side=1, stride=stride), nn.BatchNorm3d(out_dim))


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and what goes around them; in 2.5D one in time behind each.

    The second stands behind the sum with what went around, as in the released code.
    """

    expansion = 1

    def __init__(self, in_dim: int, width: int, kind: str, stride: int) -> None:
        super().__init__()
        self.conv1 = _spatial(in_dim, width, kind, stride=stride)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv1_time = _temporal(width) if kind == "2.5D" else None
        self.conv2 = _spatial(width, width, kind)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv2_time = _temporal(width) if kind == "2.5D" else None
        self.downsample = _shortcut(in_dim, width, stride)
        setattr(self.bn2, ENDS_BRANCH, True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, T, H, W) to (B, width, T, H/stride, W/stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        if self.conv1_time is not None:
            out = F.relu(self.conv1_time(out))
        out = self.bn2(self.conv2(out))
        out = F.relu(out + (x if self.downsample is None else self.downsample(x)))
        return out if self.conv2_time is None else F.relu(self.conv2_time(out))


class Bottleneck(nn.Module):
    """A 3 × 3 convolution between two of 1 × 1, and what goes around them; in 2.5D one in time behind the 3 × 3 one."""

    expansion = 4

    def __init__(self, in_dim: int, width: int, kind: str, stride: int) -> None:
        super().__init__()
        out_dim = self.expansion * width
        self.conv1 = _spatial(in_dim, width, "2D", side=1)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = _spatial(width, width, kind, stride=stride)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv2_time = _temporal(width) if kind == "2.5D" else None
        self.conv3 = _spatial(width, out_dim, "2D", side=1)
        self.bn3 = nn.BatchNorm3d(out_dim)
        self.downsample = _shortcut(in_dim, out_dim, stride)
        setattr(self.bn3, ENDS_BRANCH, True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, T, H, W) to (B, 4 width, T, H/stride, W/stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        if self.conv2_time is not None:
            out = F.relu(self.conv2_time(out))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class InflatedResNet(Backbone):
    """ResNet-18 or -50 on video; keys are torchvision's, with those of convolutions in time and of the twin."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        conv1, *layers, twin = spec.config.kinds()
        num_blocks = _NUM_BLOCKS[spec.name]
        self.block: type[BasicBlock] | type[Bottleneck] = BasicBlock if sum(num_blocks) == 8 else Bottleneck
        with undrawn():
            self.conv1 = _spatial(3, 64, conv1, side=7, stride=2)
            self.bn1 = nn.BatchNorm3d(64)
            self.conv1_time = _temporal(64) if conv1 == "2.5D" else None
            self.bn1_time = nn.BatchNorm3d(64) if conv1 == "2.5D" else None
            self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
            width = 64
            for number, (kind, out, count) in enumerate(zip(layers, _WIDTHS, num_blocks, strict=True), 1):
                if number == len(_WIDTHS) and spec.spatial_stride == 16:
                    self.add_module(TWIN, self._layer(width, out, twin, count, stride=1))
                self.add_module(f"layer{number}", self._layer(width, out, kind, count, stride=1 if number == 1 else 2))
                width = self.block.expansion * out
            self.fc = nn.Linear(width, _NUM_CLASSES)

    def _layer(self, in_dim: int, width: int, kind: str, count: int, stride: int) -> nn.Sequential:
        first = self.block(in_dim, width, kind, stride)
        return nn.Sequential(first, *(self.block(first.expansion * width, width, kind, 1) for _ in range(1, count)))

    def stages(self) -> Mapping[str, nn.Module]:
        """Return conv1 (with its norms and pool), layer1 to layer3, the twin where there is one, and layer4."""
        first = [self.conv1, self.bn1, nn.ReLU()]
        if self.conv1_time is not None and self.bn1_time is not None:
            first += [self.conv1_time, self.bn1_time, nn.ReLU()]
        names = ("layer1", "layer2", "layer3", TWIN, "layer4")
        behind = {name: self.get_submodule(name) for name in names if hasattr(self, name)}
        return {"conv1": nn.Sequential(*first, self.maxpool), **behind}

    def forward(self, video: Tensor) -> Maps:
        """Return the maps of instances and of frames of a normalised video (B, 3, T, S, S)."""
        stages = dict(self.stages())
        last, twin = stages.pop("layer4"), stages.pop(TWIN, None)
        for stage in stages.values():
            video = self.through(stage, video)
        frames = self.through(last, video)
        return {INSTANCES: frames} if twin is None else {INSTANCES: self.through(twin, video), FRAMES: frames}

    def classify(self, video: Tensor) -> Tensor:
        """Return logits (B, 1000): the published linear layer on the frame map's average over time and space."""
        maps = self(video)
        logits: Tensor = self.fc(maps.get(FRAMES, maps[INSTANCES]).mean(dim=(2, 3, 4)))
        return logits

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a 2-D network's weights inflated; others as they are."""
        if "conv1.weight" not in state or state["conv1.weight"].ndim != 4:
            return state
        adapted = {key: value for key, value in state.items() if key not in self.state_dict()}
        for key, expected in self.state_dict().items():
            source = state.get(key.replace(TWIN, "layer4"))
            if source is not None:
                adapted[key] = _inflated(source, expected.shape)
            elif "_time." in key:
                adapted[key] = _identity(key, expected)
        return adapted


def _inflated(source: Tensor, shape: torch.Size) -> Tensor:
    """Put a 2-D kernel into the middle step of one of `shape`; anything else stays as it is."""
    if source.ndim != 4 or len(shape) != 5:
        return source
    kernel = source.new_zeros((*source.shape[:2], shape[2], *source.shape[2:]))
    kernel[:, :, shape[2] // 2] = source
    return kernel


def _identity(key: str, expected: Tensor) -> Tensor:
    """Return a weight or statistic of a convolution in time, or of the norm behind it, that changes nothing."""
    value = torch.zeros_like(expected)
    if expected.ndim == 5:
        value[:, :, 1, 0, 0] = torch.eye(len(expected))
    elif key.endswith("running_var"):
        value.fill_(1 - nn.BatchNorm3d(1).eps)  # what the norm adds to it before its root
    elif key.endswith("weight"):
        value.fill_(1)
    return value


def _published(name: str) -> Mapping[str, PublishedWeights]:
    return torchvision_weights(name.removeprefix(_PREFIX))


def _resolve(request: BackboneRequest) -> BackboneSpec:
    deep = request.name.endswith("50")
    twin = request.stride_among((16, 32)) == 16
    if not twin and request.config.instances != "same":
        raise InputError(
            f"--set instances={request.config.instances} would be ignored: at spatial stride 32 instances are pooled "
            "from layer4; give --spatial-stride 16"
        )
    return request.spec(
        channels=2048 if deep else 512,
        layer=TWIN if twin else "layer4",
        strides=(16, 32),
        map_strides={INSTANCES: 16, FRAMES: 32} if twin else None,
    )


for _name in _NUM_BLOCKS:
    BACKBONES.register(
        _name,
        BackboneFamily(resolve=_resolve, build=InflatedResNet, published=_published, config_type=InflatedConfig),
        __name__,
    )
