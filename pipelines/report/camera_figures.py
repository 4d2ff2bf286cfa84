"""Where each camera's stream looks at the same instants: attention over the cells of its map, on its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from ifcar.cache.streams import stream_spec
from ifcar.errors import IfcarError
from ifcar.extract.limits import DecodeError
from ifcar.pipelines.pictures.clips import find_sources, view_frames
from ifcar.pipelines.report.contexts import StreamHead, rows_of_segment
from ifcar.pipelines.report.drawing import Drawing, short
from ifcar.pipelines.report.panels import BLANK, SIDE, panel_figure
from ifcar.pipelines.report.views import reads_pixels

MOST_INSTANTS = 4


@dataclass(frozen=True, kw_only=True)
class CameraMaps:
    """What a camera shows of a segment, and where its stream looks.

    Args:
        title: stream and camera.
        weights: (S, H, W) in multiples of the same weight everywhere, at S instants.
        numbers: (S,) number in the video, from 1, of the frame in the middle of each.
        pixels: (S, SIDE, SIDE, 3) uint8, or None where the video is not at hand.
        without_pixels: why there are none; empty when there are.
    """

    title: str
    weights: NDArray[np.float64]
    numbers: NDArray[np.int64]
    pixels: NDArray[np.uint8] | None
    without_pixels: str


def sees(loaded: StreamHead) -> bool:
    """Return whether a stream has a map of pictures: sound has no frame to draw on."""
    spec = stream_spec(loaded.reader.spec, loaded.stream)
    own = replace(loaded.run.data(), spec=spec, identity=loaded.reader.identity_of(loaded.stream))
    return spec.grid_size is not None and reads_pixels(loaded.run.path, own)


def read_cameras(loaded: StreamHead, segment: str, data_root: Path | None) -> list[CameraMaps]:
    """Return the maps of a segment's first view by each camera of a stream."""
    cache, rows = loaded.reader.stream_rows(loaded.stream, rows_of_segment(loaded.reader, segment))
    try:
        sources = find_sources(cache, data_root)
        reason = "the data set names no film of it"
    except IfcarError as error:
        sources, reason = {}, str(error)
    spec = stream_spec(loaded.reader.spec, loaded.stream)
    assert spec.grid_size is not None
    found: dict[str, CameraMaps] = {}
    for joined, row in zip(rows_of_segment(loaded.reader, segment), rows, strict=True):
        clip = int(row) // cache.rows_per_clip
        camera = cache.clips.cameras[clip]
        if camera in found:
            continue
        weights = loaded.explain(np.array([joined]))["attention"][0].double().numpy()  # (N, HW)
        if weights.shape[1] != int(np.prod(spec.grid_size)):
            return []
        instants = (np.arange(min(MOST_INSTANTS, len(weights))) + 0.5) / min(MOST_INSTANTS, len(weights))
        frames = [int(t * spec.num_frames) for t in instants]
        maps = weights[[int(t * len(weights)) for t in instants]] * weights.shape[1]
        source, pixels = sources.get(cache.clip_ids[clip]), None
        if source is not None:
            try:
                pixels = view_frames(cache, int(row), source, frames, SIDE)
            except DecodeError as error:
                reason = str(error)
        numbers = cache.read_rows("frame_indices", np.array([row]))[0][frames].astype(np.int64) + 1
        title = loaded.stream if camera in ("", loaded.stream) else f"{loaded.stream}, {camera}"
        shaped = maps.reshape(len(frames), *spec.grid_size)
        said = "" if pixels is not None else reason
        found[camera] = CameraMaps(title=title, weights=shaped, numbers=numbers, pixels=pixels, without_pixels=said)
    return list(found.values())


def draw_cameras(system: str, segment: str, cameras: Sequence[CameraMaps], label: str, name: str) -> Drawing:
    """Draw a row a camera: its frames at the same instants under its weights, and the same weight everywhere beside."""
    columns = max(len(camera.weights) for camera in cameras)
    highest = max(2.0, *(float(camera.weights.max()) for camera in cameras))
    scale = Normalize(0, highest)
    figure, axes = panel_figure(len(cameras), columns + 1, 1.6)
    rows: list[list[object]] = []
    for place, camera in enumerate(cameras):
        for column, (weights, number) in enumerate(zip(camera.weights, camera.numbers, strict=True)):
            axis = axes[place, column]
            _show(axis, None if camera.pixels is None else camera.pixels[column], weights, scale)
            axis.set_title(f"frame {number}", fontsize=9)
            for (y, x), value in np.ndenumerate(weights):
                rows.append([segment, camera.title, int(number), y, x, float(value)])
        last = None if camera.pixels is None else camera.pixels[-1]
        _show(axes[place, -1], last, np.ones_like(camera.weights[0]), scale)
        axes[place, -1].set_title("all alike", fontsize=9)
        axes[place, 0].set_ylabel(short(camera.title, 18, 2), fontsize=9)
    bar = figure.colorbar(ScalarMappable(scale, "inferno"), ax=list(axes.flat), shrink=0.8)
    bar.set_label("weight, 1 = all cells alike", fontsize=9)
    bar.ax.axhline(1, color="white", lw=1.5)
    most = "; ".join(f"{c.title} up to {c.weights.max():.1f}" for c in cameras)
    reasons = dict.fromkeys(c.without_pixels for c in cameras if c.without_pixels)
    height, width = cameras[0].weights.shape[1:]
    return Drawing(
        name=name,
        title=f"Where the cameras look in {segment}",
        caption=f"{system}, first seed, a test clip of {label}: weight p of each of the {height} × {width} cells of "
        "the classifier's attention, at the same instants in every camera, in multiples of the weight that all cells "
        "would have alike (last column); one scale for all panels. Frames are cut as the network saw them."
        f"{''.join(f' Without frames: {reason}.' for reason in reasons)}",
        alt=f"Frames of {len(cameras)} cameras with weights of cells: {most}.",
        figure=figure,
        columns=["clip", "camera", "frame", "row", "column", "weight"],
        rows=rows,
        wide=True,
        alone=True,
    )


def _show(axis: Axes, pixels: NDArray[np.uint8] | None, weights: NDArray[np.float64], scale: Normalize) -> None:
    shown = np.full((2, 2, 3), BLANK, np.uint8) if pixels is None else pixels
    axis.imshow(shown, extent=(0, 1, 1, 0), interpolation="bilinear")
    axis.imshow(weights, extent=(0, 1, 1, 0), cmap="inferno", norm=scale, alpha=0.55, interpolation="nearest")
