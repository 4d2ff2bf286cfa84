"""`none`: no pixels are read; boxes and categories only, for layout heads. It needs no videos and no weights."""

from __future__ import annotations

from ifcar.extract.backbones.base import BACKBONES, BackboneFamily, BackboneSpec

_SPEC = BackboneSpec(
    name="none",
    channels=0,
    temporal_stride=1,
    spatial_stride=0,
    layer="",
    frame_multiple=1,
    mean=0.0,
    std=1.0,
    weights_url=None,
    license="",
)

BACKBONES.register("none", BackboneFamily(specs={0: _SPEC}, build=None), __name__)
