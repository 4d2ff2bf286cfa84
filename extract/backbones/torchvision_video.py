"""torchvision's video networks: `r2plus1d_18`, `s3d`, `swin3d_t`, `swin3d_s`, `swin3d_b` and `mvit_v2_s`.

Sources: Tran et al. 2018 (R(2+1)D); Xie et al. 2018 (S3D); Liu et al. 2022 (Video Swin); Li et al. 2022 (MViTv2);
weights and keys are torchvision's, trained on Kinetics-400. Their classifiers are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifcar.errors import InputError
from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.per_frame import torchvision_weights
from ifcar.extract.backbones.random_init import ENDS_BRANCH
from ifcar.extract.backbones.spec import INSTANCES, BackboneRequest, BackboneSpec
from ifcar.extract.backbones.undrawn import undrawn

_CLASSIFIERS: Final = ("fc.", "classifier.", "head.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A layer whose output is a map.

    Args:
        name: in torchvision's names.
        stride: pixels per cell.
        channels: C.
        frames: per step.
    """

    name: str
    stride: int
    channels: int
    frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """What is particular to a network.

    Args:
        layers: those whose output can be the map, the default first.
        fewest_frames: that it takes.
        only: the frames and pixels that it takes, where its positions are counted.
        channels_last: whether its maps have their channels last.
        gives_tokens: whether it gives a token a patch, and one of the clip first, in place of maps.
    """

    layers: tuple[Layer, ...]
    fewest_frames: int = 1
    only: tuple[int, int] | None = None
    channels_last: bool = False
    gives_tokens: bool = False


def _swin(channels: int) -> Network:
    return Network(layers=(Layer(name="norm", stride=32, channels=channels, frames=2),), channels_last=True)


NETWORKS: Final[Mapping[str, Network]] = {
    "r2plus1d_18": Network(
        layers=(
            Layer(name="layer4", stride=16, channels=512, frames=8),
            Layer(name="layer3", stride=8, channels=256, frames=4),
        )
    ),
    "s3d": Network(
        layers=(
            Layer(name="features.12", stride=16, channels=832, frames=4),
            Layer(name="features.15", stride=32, channels=1024, frames=8),
        ),
        fewest_frames=14,
    ),
    "swin3d_t": _swin(768),
    "swin3d_s": _swin(768),
    "swin3d_b": _swin(1024),
    "mvit_v2_s": Network(
        layers=(Layer(name="norm", stride=32, channels=768, frames=2),), only=(16, 224), gives_tokens=True
    ),
}


class TorchvisionVideo(Backbone):
    """A network of torchvision up to its feature map; keys are torchvision's."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        with undrawn():
            network = _untrained(spec.name)
        for name, child in network.named_children():
            if f"{name}." not in _CLASSIFIERS and name != "avgpool":
                self.add_module(name, child)
        for block in self.modules():
            ending = getattr(block, "conv2", None)
            if isinstance(ending, nn.Sequential) and isinstance(ending[-1], nn.BatchNorm3d):
                setattr(ending[-1], ENDS_BRANCH, True)

    def initialise(self, seed: int) -> None:
        """Give convolutional networks He's weights, and transformers those of torchvision's own start."""
        if any(isinstance(module, nn.BatchNorm3d) for module in self.modules()):
            super().initialise(seed)
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            started = _untrained(self.spec.name).state_dict()
        self.load_state_dict({key: value for key, value in started.items() if not key.startswith(_CLASSIFIERS)})
        self.eval()

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave the classifier out."""
        return {key: value for key, value in state.items() if not key.startswith(_CLASSIFIERS)}

    def stages(self) -> Mapping[str, nn.Module]:
        """Return the parts up to the layer, those of the layer's own sequence one by one."""
        sequence = self.spec.layer.rpartition(".")[0]
        found = self.get_submodule(sequence).named_children()
        parts = {f"{sequence}.{name}" if sequence else name: child for name, child in found}
        names = list(parts)
        return {name: parts[name] for name in names[: names.index(self.spec.layer) + 1]}

    def forward(self, video: Tensor) -> Maps:
        """Return the layer's output (B, C, T′, H, W) for a normalised video (B, 3, T, S, S)."""
        network = NETWORKS[self.spec.name]
        if network.gives_tokens:
            return {INSTANCES: self._tokens(video)}
        for stage in self.stages().values():
            video = self.through(stage, video)
        if network.channels_last:
            video = video.permute(0, 4, 1, 2, 3)
        return {INSTANCES: video}

    def _tokens(self, video: Tensor) -> Tensor:
        parts: Any = self.stages()
        tokens = parts["pos_encoding"](parts["conv_proj"](video).flatten(2).transpose(1, 2))
        size = (parts["pos_encoding"].temporal_size, *parts["pos_encoding"].spatial_size)
        for block in parts["blocks"]:
            tokens, size = block(tokens, size)
        maps: Tensor = parts["norm"](tokens)[:, 1:]  # the first token is the clip's
        return maps.transpose(1, 2).reshape(len(video), -1, *size)

    def run_every_layer(self, video: Tensor) -> object:
        """Run the layers behind the map too, whose statistics random weights calibrate."""
        for name, child in self.named_children():
            if name not in ("pos_encoding", "blocks"):
                video = child(video)
        return video


def _untrained(name: str) -> nn.Module:
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None)
    return network


def _resolve(request: BackboneRequest) -> BackboneSpec:
    network = NETWORKS[request.name]
    layers = {layer.stride: layer for layer in network.layers}
    chosen = layers[request.stride_among(tuple(layers))]
    if request.num_frames < network.fewest_frames:
        raise InputError(
            f"backbone {request.name!r} takes {network.fewest_frames} frames or more; {request.num_frames} were asked "
            "for"
        )
    if network.only is not None and (request.num_frames, request.crop_size) != network.only:
        frames, size = network.only
        raise InputError(
            f"backbone {request.name!r} takes --frames {frames} --crop {size} only, not {request.num_frames} frames of "
            f"{request.crop_size} pixels"
        )
    return request.spec(
        channels=chosen.channels, layer=chosen.name, strides=tuple(layers), temporal_stride=chosen.frames
    )


def _published(name: str) -> Mapping[str, Any]:
    return torchvision_weights(name, trained_on="Kinetics-400")


for _name, _of_name in NETWORKS.items():
    BACKBONES.register(
        _name,
        BackboneFamily(
            resolve=_resolve,
            build=TorchvisionVideo,
            published=_published,
            shown_frames=32 if _of_name.only is None else _of_name.only[0],
        ),
        __name__,
    )
