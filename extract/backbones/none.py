"""`none`: no pixels are read; boxes and categories only, for layout heads. It needs no videos and no weights."""

from __future__ import annotations

from ifcar.extract.backbones.base import BACKBONES, BackboneFamily

BACKBONES.register(
    "none", BackboneFamily(resolve=lambda request: request.spec_of_frames("nothing"), build=None), __name__
)
