"""Frames of a clip side by side, with boxes, arrows and maps drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ifcar.cache.schema import step_frames
from ifcar.extract.limits import DecodeError
from ifcar.pipelines.pictures.clips import view_frames
from ifcar.pipelines.report.views import CachedViews

SIDE = 128  # pixels of a frame
BLANK = 245
PANEL_INCH = 1.5


@dataclass(frozen=True, kw_only=True)
class ClipSteps:
    """A clip at some of its feature steps.

    Args:
        clip_id: its id.
        steps: (S,) numbers of the steps, ascending.
        numbers: (S,) number in the video, from 1, of the first frame of each.
        boxes: (T′, N, 4) of all steps.
        categories: (T′, N) of all steps.
        pixels: (S, SIDE, SIDE, 3) uint8, or None where the video is not at hand.
    """

    clip_id: str
    steps: NDArray[np.int64]
    numbers: NDArray[np.int64]
    boxes: NDArray[np.float32]
    categories: NDArray[np.uint8]
    pixels: NDArray[np.uint8] | None


def read_steps(views: CachedViews, clip_id: str, most: int, steps: Sequence[int] = ()) -> ClipSteps:
    """Read a clip's cached view at these steps, or at up to `most`, at even distances."""
    row, spec = views.rows[clip_id], views.reader.spec
    seen = views.batch(("boxes", "categories", "frame_indices"), [clip_id])
    boxes, categories, numbers = (array[0].numpy() for array in seen.arrays.values())
    frames = step_frames(spec.num_frames, spec.num_steps)
    even = np.unique(np.linspace(0, spec.num_steps - 1, min(most, spec.num_steps)).round().astype(np.int64))
    shown = np.array(steps, np.int64) if steps else even
    pixels, source = None, views.sources.get(clip_id)
    if source is not None:
        try:
            pixels = view_frames(views.reader, row, source, [int(frames[s]) for s in shown], SIDE)
        except DecodeError:
            pixels = None
    return ClipSteps(
        clip_id=clip_id,
        steps=shown,
        numbers=numbers[frames][shown].astype(np.int64) + 1,
        boxes=boxes[frames],
        categories=categories[frames],
        pixels=pixels,
    )


def panel_figure(
    num_rows: int, num_columns: int, extra_inch: float = 0.5, panel_inch: float = PANEL_INCH
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of square panels without axes, (rows, columns)."""
    size = (panel_inch * num_columns + extra_inch, (panel_inch + 0.06) * num_rows + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    for one in axes.flat:
        one.set_xticks([])
        one.set_yticks([])
        one.set_xlim(0, 1)
        one.set_ylim(1, 0)
        one.set_aspect("equal")
        for side in one.spines.values():
            side.set_visible(False)
    return figure, axes


def show_frame(axes: Axes, clip: ClipSteps, place: int) -> None:
    """Draw the frame of the shown step `place`; blank without pixels."""
    if clip.pixels is None:
        axes.imshow(np.full((2, 2, 3), BLANK, np.uint8), extent=(0, 1, 1, 0))
        return
    axes.imshow(clip.pixels[place], extent=(0, 1, 1, 0), interpolation="bilinear")


def draw_box(axes: Axes, box: Sequence[float] | NDArray[np.float32], colour: str, *, width: float = 1.8) -> None:
    """Draw a box (cx, cy, w, h), on a light edge so that it is seen on any ground."""
    cx, cy, w, h = (float(v) for v in box)
    corner = (cx - w / 2, cy - h / 2)
    axes.add_patch(Rectangle(corner, w, h, fill=False, ec="white", lw=width + 1.2))
    axes.add_patch(Rectangle(corner, w, h, fill=False, ec=colour, lw=width))
