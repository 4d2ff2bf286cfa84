"""Every backbone by name: adding one is one file and one import here."""

from __future__ import annotations

import ifcar.extract.backbones.i3d_inception
import ifcar.extract.backbones.i3d_r50
import ifcar.extract.backbones.none
import ifcar.extract.backbones.slowfast_r50  # noqa: F401  (these imports fill the registry)
from ifcar.errors import InputError
from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily
from ifcar.extract.backbones.reduced import ReducedBackbone


def get_backbone(name: str) -> BackboneFamily:
    """Return the family called `name`.

    Raises:
        InputError: no such name; the message lists the known ones.
    """
    return BACKBONES.get(name)


def names() -> list[str]:
    """Return the registered names, sorted."""
    return BACKBONES.names()


def build_backbone(name: str, *, num_frames: int, spatial_stride: int, reduction: int = 0) -> Backbone:
    """Build a backbone without weights, in evaluation mode; `ifcar.extract.weights.load_weights` fills it.

    Args:
        name: registered name.
        num_frames: T, frames of a view.
        spatial_stride: pixels per cell of the feature map, 16 or 32.
        reduction: channels of a 1×1×1 convolution on top, or 0.

    Raises:
        InputError: unknown name, a stride that the family does not have, a number of frames that it cannot
            take, or a family that reads no pixels.
    """
    family = get_backbone(name)
    spec = family.spec(spatial_stride)
    if family.build is None:
        raise InputError(f"backbone {name!r} reads no pixels, so there is no network to build; use another one")
    spec.num_steps(num_frames)
    network = family.build(spec)
    return (ReducedBackbone(network, reduction) if reduction else network).eval()
