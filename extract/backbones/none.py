"""`none`: no pixels are read; boxes and categories only, for layout heads. It needs no videos and no weights."""

from __future__ import annotations

from ifcar.errors import InputError
from ifcar.extract.backbones.base import BACKBONES, BackboneFamily
from ifcar.extract.backbones.spec import BackboneRequest, BackboneSpec


def _resolve(request: BackboneRequest) -> BackboneSpec:
    if request.num_frames < 1:
        raise InputError(f"backbone 'none' cannot take {request.num_frames} frames; expected at least 1")
    return BackboneSpec(
        name=request.name,
        reads="nothing",
        num_frames=request.num_frames,
        num_steps=request.num_frames,
        crop_size=request.crop_size,
    )


BACKBONES.register("none", BackboneFamily(resolve=_resolve, build=None), __name__)
