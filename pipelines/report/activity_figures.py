"""Where activity-specific features come from: maps of each activity over a clip's frames, and boxes around them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ifcar.pipelines.report.drawing import Drawing, short
from ifcar.pipelines.report.panels import ClipSteps, draw_box, panel_figure, read_steps, show_frame
from ifcar.pipelines.report.trained import TrainedHead
from ifcar.pipelines.report.views import CachedViews

THRESHOLD = 0.5
MOST_STEPS, MOST_ACTIVITIES = 6, 3
MAP_SIDE = 64  # cells a side to which a map is enlarged before it is cut off at the threshold
ACTIVITY_COLOURS = ("#0072b2", "#d55e00", "#009e73")
Map = NDArray[np.float64]


def draw_activity_maps(
    trained: TrainedHead, views: CachedViews, clip_id: str, activities: Sequence[int], classes: Sequence[str], name: str
) -> Drawing:
    """Draw the maps of a clip's activities.

    Args:
        trained: a head that explains itself by "activity_maps".
        views: the cached views.
        clip_id: the clip.
        activities: classes that the clip shows.
        classes: all class names.
        name: of the figure's files.

    Source: Zhang et al., §7, Fig. 4: attention times backbone features, between 0 and 1 over the clip, cut at 0.5.
    """
    shown = list(activities[:MOST_ACTIVITIES])
    clip = read_steps(views, clip_id, MOST_STEPS)
    attention, backbone = step_maps(trained, views, clip)
    maps = [scaled(attention[k] * backbone)[clip.steps] for k in shown]
    plain = scaled(backbone)[clip.steps]
    figure, axes = panel_figure(2 + len(shown), len(clip.steps))
    rows: list[list[object]] = []
    for column, number in enumerate(clip.numbers):
        show_frame(axes[0, column], clip, column)
        axes[0, column].set_title(f"frame {number}", fontsize=10)
        for place, k in enumerate(shown):
            found = regions(maps[place][column])
            for box in found:
                draw_box(axes[0, column], box, ACTIVITY_COLOURS[place])
            _show_map(axes[1 + place, column], clip, column, maps[place][column])
            highest = float(maps[place][column].max())
            rows.append([clip_id, classes[k], int(number), highest, len(found)])
        _show_map(axes[-1, column], clip, column, plain[column])
    for place, k in enumerate(shown):
        axes[1 + place, 0].set_ylabel(short(classes[k], 20, 3), fontsize=9, color=ACTIVITY_COLOURS[place])
    axes[0, 0].set_ylabel("regions above\n0.5", fontsize=9)
    axes[-1, 0].set_ylabel("backbone\nfeatures", fontsize=9)
    names = ", ".join(classes[k] for k in shown)
    when = "; ".join(
        f"{classes[k]} is strongest in frame {clip.numbers[int(m.max(axis=(1, 2)).argmax())]}"
        for k, m in zip(shown, maps, strict=True)
    )
    return Drawing(
        name=name,
        title=f"Maps of clip {clip_id}",
        caption=f"{trained.system}, seed {trained.run.metrics[0].seed}: where the descriptor of each activity of the "
        f"clip comes from ({names}). A map is Attn_A · Attn_O times the mean of the backbone's features, scaled to "
        "0 … 1 over the whole clip; light is high. Top row: boxes around what is above 0.5, in the colour of the "
        f"activity. Last row: the backbone's features alone. The feature map has {_cells(backbone)} cells a step.",
        alt=f"Sampled frames and maps of {names} for clip {clip_id}. {when}.",
        figure=figure,
        columns=["clip", "activity", "frame", "highest", "regions"],
        rows=rows,
        wide=True,
        alone=True,
    )


def step_maps(trained: TrainedHead, views: CachedViews, clip: ClipSteps) -> tuple[Map, Map]:
    """Return the attention of every class (K, T′, H, W), and the mean over channels of the features (T′, H, W).

    The bins of RoIs are painted where their boxes lie.
    """
    batch = trained.batch(views, [clip.clip_id])
    maps = trained.explain(views, clip.clip_id)["activity_maps"].numpy().astype(np.float64)  # (K, P)
    if "grid_features" in batch.arrays:
        grid = batch.array("grid_features")[0].float().mean(1).numpy().astype(np.float64)  # (T′, H, W)
        return maps.reshape(len(maps), *grid.shape), grid
    rois = batch.array("instance_features")[0].float().mean(2).numpy().astype(np.float64)  # (T′, N, P, P)
    painted = np.stack([paint(m.reshape(rois.shape), clip) for m in maps])
    return painted, paint(rois, clip)


def paint(rois: NDArray[np.float64], clip: ClipSteps) -> Map:
    """Return (T′, MAP_SIDE, MAP_SIDE): the bins (T′, N, P, P) in their boxes, the higher value where boxes overlap."""
    canvas = np.zeros((len(rois), MAP_SIDE, MAP_SIDE))
    for step, (boxes, real) in enumerate(zip(clip.boxes, clip.categories > 0, strict=True)):
        for slot in np.flatnonzero(real):
            cx, cy, w, h = (float(v) for v in boxes[slot])
            corners = MAP_SIDE * np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
            x1, y1, x2, y2 = np.clip(corners.round(), 0, MAP_SIDE).astype(int)
            if x2 > x1 and y2 > y1:
                bins = cv2.resize(rois[step, slot], (int(x2 - x1), int(y2 - y1)), interpolation=cv2.INTER_NEAREST)
                canvas[step, y1:y2, x1:x2] = np.maximum(canvas[step, y1:y2, x1:x2], bins)
    return canvas


def scaled(values: Map) -> Map:
    """Return values between 0 and 1 over the whole clip; all zeros where they do not differ."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def regions(values: Map) -> list[tuple[float, float, float, float]]:
    """Return the boxes (cx, cy, w, h), in [0, 1], of the connected regions of a map (H, W) above the threshold."""
    large = cv2.resize(values, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_LINEAR)
    _, _, stats, _ = cv2.connectedComponentsWithStats((large > THRESHOLD).astype(np.uint8), connectivity=4)
    return [
        ((x + w / 2) / MAP_SIDE, (y + h / 2) / MAP_SIDE, w / MAP_SIDE, h / MAP_SIDE)
        for x, y, w, h in (tuple(int(v) for v in row[:4]) for row in stats[1:])
    ]


def _show_map(axes: Axes, clip: ClipSteps, place: int, values: Map) -> None:
    show_frame(axes, clip, place)
    large = cv2.resize(values, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_LINEAR)
    axes.imshow(large, extent=(0, 1, 1, 0), cmap="inferno", vmin=0, vmax=1, alpha=0.75)


def _cells(backbone: Map) -> str:
    return f"{backbone.shape[1]} × {backbone.shape[2]}"
