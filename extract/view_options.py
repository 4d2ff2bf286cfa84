"""The options of views, each declared once, for the configs that show clips to a backbone.

A config takes those that it can keep: extraction how many are augmented, live training how these are cropped, a
`ifcar.extract.views.ViewPolicy` both. What has no slots can be mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ifcar.config_fields import Bounds, Option, check_fields

Framing = Literal["stretch", "center", "three-crops"]
Cropping = Literal["area", "scale-jitter", "multi-scale"]
Sampling = Literal["segments", "annotated", "rate"]
PooledMode = Literal["3", "7-max", "mask", "none"]

SIDES = Bounds(least=16, most=1024)  # of a crop, in pixels
FRAMES = Bounds(least=1, most=1024)  # of a view
SHARE = Bounds(above=0, most=1)  # of a frame's side
MAX_SAMPLING_FPS = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewOptions:
    """What a view shows of a clip; None takes the dataset's own.

    Args:
        frames: T, frames sampled for a view.
        crop: side of the square that the network sees, in pixels.
        views: V, plain views of every clip, of which tests take all.
        instances: N, instance slots.
        background: the last of them holds what the others' masks leave of the frame.
        framing: what plain views show: "stretch", the whole frame resized to the square (Yan et al. 2020, §3.3), or
            "center", the centre square of 224/256 of the short side, or "three-crops", squares of the whole short side
            at the middle, the start and the end of the long one, of which V is a multiple of 3.
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
    views: Annotated[
        int,
        Option("V, plain views of every clip, whose scores are pooled; a multiple of 3 with three crops."),
        Bounds(least=1),
    ] = 1
    instances: Annotated[
        int, Option("N, instance slots: subjects first, then the longest tracks."), Bounds(least=1, most=256)
    ] = 4
    background: Annotated[
        bool,
        Option("The last slot holds what the others' masks leave of the frame, an object of class 0, background."),
    ] = False
    framing: Annotated[
        Framing, Option("Plain views: stretch (whole frame), center or three-crops (squares along the long side).")
    ] = "stretch"
    flip: Annotated[bool, Option("Mirror half of the augmented views.")] = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class SampledViews(ViewOptions):
    """Which frames a view takes.

    Args:
        sampling: "segments", "annotated" or "rate", see `ifcar.extract.views`; default: rate where one of the next two
            is given, else the dataset's.
        sampling_fps: with "rate": sampled frames per second.
        sampling_rates: with "rate" instead of `sampling_fps`: source frames per sampled frame, ascending; the plain
            views share them as `place_of_view` says.
    """

    sampling: Annotated[
        Sampling | None,
        Option(
            "Where a view's frames come from: segments (T equal parts of the clip), annotated (of its annotated "
            "frames) or rate; default: the dataset's."
        ),
    ] = None
    sampling_fps: Annotated[
        float | None,
        Option("T frames at so many a second: 32 at 6 cover 5.3 s. Implies --sampling rate."),
        Bounds(above=0, most=MAX_SAMPLING_FPS),
    ] = None
    sampling_rates: Annotated[
        tuple[float, ...],
        Option("T frames, one of every r of the source; the views share the rates: 2,4,8. Implies rate."),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class AugmentedViews(ViewOptions):
    """How many augmented views there are.

    Args:
        augmented_views: A, further views of the clips that some protocol trains on, for training only.
        seed: of the augmented views.
    """

    augmented_views: Annotated[
        int,
        Option("A, further views of training clips, drawn at random; for training only."),
        Bounds(least=0),
    ] = 0
    seed: Annotated[int, Option("Of the augmented views.")] = 0


@dataclass(frozen=True, kw_only=True)
class LayoutViews(ViewOptions):
    """Boxes at frames of their own.

    Args:
        layout_frames: T_L, frames of the clip at which boxes are kept beside those of the view's own: one of each of
            T_L equal segments, or of the annotated frames where `sampling` says so; 0 keeps none.
    """

    layout_frames: Annotated[
        int,
        Option("T_L, frames at which boxes are kept beside those of the view: for --set layout.frames=layout."),
        Bounds(least=0, most=1024),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class CroppedViews(ViewOptions):
    """How augmented views are cropped.

    Args:
        cropping: "area", a part of the frame at its own aspect, see `random_crop`; "scale-jitter" or "multi-scale", a
            square, see `jittered_square` and `multi_scale_square`.
        min_scale: smallest side of an "area" crop, as a share of the frame's.
    """

    cropping: Annotated[Cropping, Option("Crops of augmented views: area, scale-jitter or multi-scale.")] = "area"
    min_scale: Annotated[float, SHARE] = 0.7
