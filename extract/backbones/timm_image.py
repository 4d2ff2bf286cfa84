"""`timm:NAME`: any image network of timm that gives a feature map, on every frame by itself.

Source: the library timm. Weights come from a file or folder under timm's own keys; statistics of the input are those
that timm records for the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ifcar.errors import InputError, one_line
from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.per_frame import frames_of
from ifcar.extract.backbones.spec import INSTANCES, BackboneRequest, BackboneSpec, Normalisation
from ifcar.extract.backbones.transformers_folder import library
from ifcar.extract.backbones.undrawn import undrawn


class TimmImage(Backbone):
    """A network of timm without its classifier; its weights lie under `network.`."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        with undrawn():
            self.network = _network(spec.name, spec.crop_size)

    def initialise(self, seed: int) -> None:
        """Draw the weights as timm does, under the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _network(self.spec.name, self.spec.crop_size)
        self.eval()

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave the classifier out; every other key gets its place."""
        classifiers = self.network.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
        names = tuple(f"{name}." for name in ((classifiers,) if isinstance(classifiers, str) else classifiers))
        return {f"network.{key}": value for key, value in state.items() if not (names and key.startswith(names))}

    def forward(self, video: Tensor) -> Maps:
        """Return the last map (B, C, T, H, W) for a normalised video (B, 3, T, S, S)."""
        maps = _last_map(self.network, frames_of(video))
        return {INSTANCES: maps.unflatten(0, (len(video), -1)).transpose(1, 2)}  # type: ignore[no-untyped-call]


def _last_map(network: Any, frames: Tensor) -> Tensor:
    (last,) = network.forward_intermediates(frames, indices=[-1], output_fmt="NCHW", norm=True, intermediates_only=True)
    out: Tensor = last
    return out


def _network(name: str, crop_size: int) -> nn.Module:
    """Build a network for a crop. Raises InputError where timm has none of that name, or it gives no map."""
    timm, variant = library("timm", f"backbone {name!r}"), name.partition(":")[2]
    try:
        try:
            network: nn.Module = timm.create_model(variant, pretrained=False, num_classes=0, img_size=crop_size)
        except TypeError:  # convolutional networks take any size
            network = timm.create_model(variant, pretrained=False, num_classes=0)
    except Exception as error:  # timm raises errors of many kinds
        raise InputError(f"backbone {name!r}: timm cannot build it ({one_line(error)})") from error
    if not hasattr(network, "forward_intermediates"):
        raise InputError(f"backbone {name!r} gives no feature map (no forward_intermediates); use another of timm's")
    return network


@cache
def _shape(name: str, crop_size: int) -> tuple[int, int, Mapping[str, Any]]:
    """Return channels and side of the last map of a crop, and what timm records of the weights."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network = _network(name, crop_size).eval()
            maps = _last_map(network, torch.empty(1, 3, crop_size, crop_size))
    except InputError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"backbone {name!r} cannot take crops of {crop_size} pixels ({one_line(error)})") from error
    recorded: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    return maps.shape[1], maps.shape[2], recorded


def _resolve(request: BackboneRequest) -> BackboneSpec:
    channels, side, recorded = _shape(request.name, request.crop_size)
    if request.crop_size % side:
        raise InputError(
            f"backbone {request.name!r} makes {side} cells of crops of {request.crop_size} pixels; expected a crop "
            "that its cells divide"
        )
    return request.spec(
        channels=channels,
        layer="last map, with timm's last norm",
        strides=(request.crop_size // side,),
        normalisation=Normalisation(mean=tuple(recorded["mean"]), std=tuple(recorded["std"])),
    )


BACKBONES.register("timm", BackboneFamily(resolve=_resolve, build=TimmImage, variants="NAME"), __name__)
