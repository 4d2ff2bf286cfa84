"""Every backbone by name: adding one is one file and one import here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import ifcar.extract.backbones.i3d_inception
import ifcar.extract.backbones.i3d_r50
import ifcar.extract.backbones.inflated_resnet
import ifcar.extract.backbones.mobilenet_v2
import ifcar.extract.backbones.none
import ifcar.extract.backbones.resnet50
import ifcar.extract.backbones.slowfast_r50
import ifcar.extract.backbones.timm_image
import ifcar.extract.backbones.torchvision_video
import ifcar.extract.backbones.transformers_video
import ifcar.extract.backbones.vggish
from ifcar.errors import InputError
from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily
from ifcar.extract.backbones.reduced import ReducedBackbone
from ifcar.extract.backbones.spec import BackboneRequest, BackboneSpec, Normalisation

_NORMALISATION = "normalisation"


def get_backbone(name: str) -> BackboneFamily:
    """Return the family of a name such as "i3d_r50" or "timm:resnet18".

    Raises:
        InputError: no such name; the message lists the known ones. Or a variant is missing or not known of.
    """
    registered, colon, variant = name.partition(":")
    family = BACKBONES.get(registered)
    if bool(variant) != bool(family.variants) or (colon and not variant):
        expected = f"{registered}:{family.variants}" if family.variants else registered
        raise InputError(f"backbone {name!r}: expected {expected}")
    return family


def names() -> list[str]:
    """Return the registered names, sorted."""
    return BACKBONES.names()


def resolve_backbone(
    name: str,
    *,
    num_frames: int = 8,
    crop_size: int = 224,
    spatial_stride: int | None = None,
    weights: str | None = None,
    facts: Mapping[str, Any] | None = None,
    config: Any = None,
) -> BackboneSpec:
    """Return the facts of a backbone.

    Args:
        name: registered name, with a variant where the family has any.
        num_frames: T, frames of a view.
        crop_size: S, side of the square in pixels.
        spatial_stride: pixels per cell of the feature map; None takes the backbone's default.
        weights: as `load_weights` takes them; some families read from them what network they belong to.
        facts: what weights said that were read before, in place of reading them.
        config: the family's own options; default: its defaults.

    Raises:
        InputError: unknown name, a stride or size that the network does not have, or weights that do not say what it
            must know.
    """
    family = get_backbone(name)
    facts = family.facts(weights) if facts is None else facts
    published = family.published(name)
    config = family.config_type() if config is None else config
    spec = family.resolve(
        BackboneRequest(
            name=name,
            num_frames=num_frames,
            crop_size=crop_size,
            spatial_stride=spatial_stride,
            published=published,
            facts=facts,
            config=config,
        )
    )
    chosen = published.get(weights or "")
    if chosen is not None and chosen.normalisation != spec.normalisation:
        facts = {**facts, _NORMALISATION: {key: list(value) for key, value in asdict(chosen.normalisation).items()}}
    if _NORMALISATION in facts:
        own = {key: tuple(value) for key, value in facts[_NORMALISATION].items()}
        spec = replace(spec, normalisation=Normalisation(**own))
    return replace(spec, published=published, facts=facts, config=config)


def build_backbone(spec: BackboneSpec) -> Backbone:
    """Build a backbone without weights, in evaluation mode; `ifcar.extract.weights.load_weights` fills it.

    Raises:
        InputError: the backbone reads nothing, so that there is no network.
    """
    build = get_backbone(spec.name).build
    if build is None:
        raise InputError(f"backbone {spec.name!r} reads no pixels, so there is no network to build; use another one")
    network = build(replace(spec, reduction=0))
    return (ReducedBackbone(network, spec.reduction) if spec.reduction else network).eval()
