"""The options of views that every config shares which shows clips to a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ifcar.config_fields import Bounds, Option, check_fields

Framing = Literal["stretch", "center"]
Cropping = Literal["area", "scale-jitter", "multi-scale"]
Sampling = Literal["segments", "annotated", "rate"]

SIDES = Bounds(least=16, most=1024)  # of a crop, in pixels
FRAMES = Bounds(least=1, most=1024)  # of a view
SHARE = Bounds(above=0, most=1)  # of a frame's side


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewOptions:
    """What a view shows of a clip; None takes the dataset's own.

    Args:
        frames: T, frames sampled for a view.
        crop: side of the square that the network sees, in pixels.
        views: V, plain views of every clip, of which tests take all.
        instances: N, instance slots.
        framing: what plain views show: "stretch", the whole frame resized to the square (Yan et al. 2020, §3.3), or
            "center", the centre square of 224/256 of the short side.
        flip: mirror half of the augmented views; only right where no class names left or right.
    """

    frames: Annotated[
        int | None,
        Option("T, frames sampled for a view; default: the dataset's, 8 (toybox: 16)."),
        FRAMES,
    ] = None
    crop: Annotated[
        int | None,
        Option("Side of the crop in pixels; default: the dataset's, 224 (toybox: 112)."),
        SIDES,
    ] = None
    views: Annotated[int, Option("V, plain views of every clip; scores are averaged over them."), Bounds(least=1)] = 1
    instances: Annotated[
        int, Option("N, instance slots: subjects first, then the longest tracks."), Bounds(least=1, most=256)
    ] = 4
    framing: Annotated[Framing, Option("Plain views: stretch (whole frame) or center (square).")] = "stretch"
    flip: Annotated[bool, Option("Mirror half of the augmented views.")] = False

    def __post_init__(self) -> None:
        check_fields(self)
