"""What ORN relates over time: interaction graphs of classes, and the two moments of a clip that it relates most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, FancyArrowPatch
from matplotlib.path import Path as Curve
from numpy.typing import NDArray

from ifcar.cache.arrays import MASKS
from ifcar.cache.schema import step_frames
from ifcar.counts import count_of
from ifcar.pipelines.report.drawing import GREY, INK, Drawing, short
from ifcar.pipelines.report.panels import ClipSteps, draw_box, panel_figure, read_steps, show_frame
from ifcar.pipelines.report.trained import TrainedHead, spread
from ifcar.pipelines.report.views import CachedViews

OBJECT_CLASSES = "object_classes"
NUM_CLASSES, CLIPS_A_CLASS, CLIPS_AT_ONCE = 4, 40, 8
FEWEST_PAIRS, MOST_EDGES, MOST_LINES = 5, 12, 12
MASK_ON = 128  # of 255
MOMENT_INCH = 2.6  # a side of a frame on which masks and names are drawn
COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")


@dataclass(frozen=True, kw_only=True)
class InteractionGraph:
    """The relations in the test clips of a class, by the classes of the earlier and of the later object.

    Args:
        num_clips: clips that were looked at.
        pairs: (O, O) how many pairs there are, earlier class first.
        strength: (O, O) the sum of their relations e.
    """

    num_clips: int
    pairs: NDArray[np.int64]
    strength: NDArray[np.float64]

    def mean(self) -> NDArray[np.float64]:
        """Return (O, O) the mean e of a pair; zero where there are fewer than `FEWEST_PAIRS`."""
        return np.where(self.pairs >= FEWEST_PAIRS, self.strength / np.maximum(self.pairs, 1), 0.0)


def interaction_graph(trained: TrainedHead, views: CachedViews, clip_ids: Sequence[str]) -> InteractionGraph:
    """Add up e over all pairs of objects of an earlier and a later step (Baradel et al. 2018, Fig. 4)."""
    spec = views.reader.spec
    size = len(spec.array(OBJECT_CLASSES).classes)
    pairs, strength = np.zeros((size, size), np.int64), np.zeros((size, size))
    frames = step_frames(spec.num_frames, spec.num_steps)
    for start in range(0, len(clip_ids), CLIPS_AT_ONCE):
        ids = clip_ids[start : start + CLIPS_AT_ONCE]
        related = trained.head.explain(trained.batch(views, ids))["relations"].detach().double().numpy()
        seen = views.batch((OBJECT_CLASSES, "categories"), ids)
        classes, present = (seen.array(name).numpy()[:, frames] for name in (OBJECT_CLASSES, "categories"))
        known = (present > 0) & (classes >= 0)
        for later in range(1, spec.num_steps):
            for earlier in range(later):
                there = known[:, earlier, :, None] & known[:, later, None, :]
                ends = (classes[:, earlier, :, None], classes[:, later, None, :])
                first, second = (np.broadcast_to(end, there.shape)[there].astype(np.int64) for end in ends)
                np.add.at(pairs, (first, second), 1)
                np.add.at(strength, (first, second), related[:, later, earlier][there])
    return InteractionGraph(num_clips=len(clip_ids), pairs=pairs, strength=strength)


def draw_interactions(
    trained: TrainedHead, views: CachedViews, clips: Sequence[tuple[str, Sequence[str]]], name: str
) -> Drawing:
    """Draw for each class, above, how often object classes follow each other and, below, how strongly they are related.

    Args:
        trained: a head that explains itself by "relations".
        views: gives its clips.
        clips: test clips by class.
        name: of the files.
    """
    names = views.reader.spec.array(OBJECT_CLASSES).classes
    chosen = {title: [ids[k] for k in spread(range(len(ids)), CLIPS_A_CLASS)] for title, ids in clips}
    graphs = {title: interaction_graph(trained, views, ids) for title, ids in chosen.items()}
    figure = Figure(figsize=(2.9 * len(graphs) + 0.3, 5.9), layout="constrained")
    panels = figure.subplots(2, len(graphs), squeeze=False)
    rows: list[list[object]] = []
    for place, (title, graph) in enumerate(graphs.items()):
        mean = graph.mean()
        panels[0, place].set_title(f"{short(title, 24)}\n{count_of(graph.num_clips, 'clip')}", fontsize=10)
        _draw_graph(panels[0, place], graph.pairs.astype(np.float64), names, GREY, "pairs")
        _draw_graph(panels[1, place], mean, names, COLOURS[1], "e")
        for a, b in np.argwhere(graph.pairs > 0):
            total, count = float(graph.strength[a, b]), int(graph.pairs[a, b])
            rows.append([title, names[a], names[b], graph.num_clips, count, total, total / count])
    for row, text in enumerate(("pairs", "mean relation e")):
        panels[row, 0].text(-0.02, 0.5, text, rotation=90, va="center", ha="right", transform=panels[row, 0].transAxes)
    return Drawing(
        name=name,
        title="Interaction graphs of classes",
        caption=f"{trained.system}, seed {trained.run.metrics[0].seed}. An arrow goes from the class of an object to "
        "that of one in a later step, over all pairs of a class's test clips. Above: number of pairs; below: their "
        f"mean relation e = Σ h_θ, of at least {FEWEST_PAIRS} pairs. The {MOST_EDGES} widest arrows of each graph are "
        "drawn, as wide as the number that they stand for, whose least and largest are below; a loop joins two objects "
        "of one class.",
        alt="Graphs of object classes for " + ", ".join(graphs),
        figure=figure,
        columns=["class", "earlier", "later", "clips", "pairs", "sum_e", "mean_e"],
        rows=rows,
        wide=True,
        alone=True,
    )


def draw_moments(trained: TrainedHead, views: CachedViews, clip_id: str, name: str) -> Drawing | None:
    """Draw the two steps of a clip with the largest Σ e, the masks, and a line for each pair (Baradel et al., Fig. 5).

    Returns:
        None where nothing is related.
    """
    related = trained.explain(views, clip_id)["relations"].detach().double().numpy()  # (T′, T′, N, N)
    totals = related.sum((2, 3))
    later, earlier = (int(k) for k in np.unravel_index(int(totals.argmax()), totals.shape))
    strength = related[later, earlier]
    if strength.max() <= 0:
        return None
    clip = read_steps(views, clip_id, 2, steps=(earlier, later))
    masks, names = _masks(views, clip_id), _names(views, clip_id)
    figure, axes = panel_figure(1, 2, extra_inch=0.2, panel_inch=MOMENT_INCH)
    centres: list[dict[int, tuple[float, float]]] = []
    for place, step in enumerate((earlier, later)):
        show_frame(axes[0, place], clip, place)
        axes[0, place].set_title(f"frame {clip.numbers[place]}", fontsize=10)
        centres.append(_draw_objects(axes[0, place], clip, step, None if masks is None else masks[step], names))
    pairs = sorted(((float(strength[j, k]), int(j), int(k)) for j, k in np.argwhere(strength > 0)), reverse=True)
    for e, j, k in pairs[:MOST_LINES]:
        line = ConnectionPatch(
            xyA=centres[0][j],
            xyB=centres[1][k],
            coordsA="data",
            coordsB="data",
            axesA=axes[0, 0],
            axesB=axes[0, 1],
            color=COLOURS[j % len(COLOURS)],
            lw=max(0.3, 3 * e / pairs[0][0]),
            alpha=0.8,
        )
        figure.add_artist(line)
    drawn = "masks" if masks is not None else "boxes"
    shown = f"the {MOST_LINES} strongest of {len(pairs)} pairs are" if len(pairs) > MOST_LINES else "all pairs are"
    return Drawing(
        name=name,
        title=f"Related moments, clip {clip_id}",
        caption=f"{trained.system}: of all pairs of steps, the two with the largest sum of relations e "
        f"({totals[later, earlier]:.3g} of {totals.sum():.3g} in all). A colour is a slot, with its {drawn}; a line "
        f"joins an object to a later one, as wide as their e over the largest, {pairs[0][0]:.3g}; {shown} drawn.",
        alt=f"Two frames of clip {clip_id} with lines between their objects: "
        + ", ".join(f"slot {j} to slot {k} {e:.3g}" for e, j, k in pairs[:5]),
        figure=figure,
        columns=["clip", "earlier_step", "later_step", "earlier_slot", "later_slot", "earlier", "later", "e"],
        rows=[[clip_id, earlier, later, j, k, names[earlier][j], names[later][k], e] for e, j, k in pairs],
        wide=True,
    )


def _names(views: CachedViews, clip_id: str) -> list[list[str]]:
    """Return the class of each slot by step, empty where the cache knows none."""
    spec = views.reader.spec
    if OBJECT_CLASSES not in spec:
        return [[""] * spec.num_instances] * spec.num_steps
    known = spec.array(OBJECT_CLASSES).classes
    numbers = views.batch((OBJECT_CLASSES,), [clip_id]).array(OBJECT_CLASSES)[0].numpy()
    steps = numbers[step_frames(spec.num_frames, spec.num_steps)].tolist()
    return [[known[number] if number >= 0 else "" for number in slots] for slots in steps]


def _masks(views: CachedViews, clip_id: str) -> NDArray[np.bool_] | None:
    """Return (T′, N, h, w) of a clip's view, or None where the cache has no masks."""
    spec = views.reader.spec
    if MASKS.name not in spec:
        return None
    found: NDArray[np.bool_] = views.batch((MASKS.name,), [clip_id]).array(MASKS.name)[0].numpy() >= MASK_ON
    return found[step_frames(spec.num_frames, spec.num_steps)]


def _draw_objects(
    axes: Axes, clip: ClipSteps, step: int, masks: NDArray[np.bool_] | None, names: Sequence[Sequence[str]]
) -> dict[int, tuple[float, float]]:
    """Draw each object's mask, or its box, with its class, and return its centre by slot."""
    centres = {}
    for slot in np.flatnonzero(clip.categories[step] > 0).tolist():
        colour = COLOURS[slot % len(COLOURS)]
        centres[slot] = (float(clip.boxes[step, slot, 0]), float(clip.boxes[step, slot, 1]))
        if masks is None or not masks[slot].any():
            draw_box(axes, clip.boxes[step, slot], colour)
        else:
            height, width = masks[slot].shape
            ys, xs = np.nonzero(masks[slot])
            centres[slot] = (float((xs.mean() + 0.5) / width), float((ys.mean() + 0.5) / height))
            grid = ((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
            axes.contourf(*grid, masks[slot].astype(float), levels=[0.5, 1.5], colors=[colour], alpha=0.35)
            axes.contour(*grid, masks[slot].astype(float), levels=[0.5], colors=[colour], linewidths=1.4)
        x, y = centres[slot]
        axes.plot([x], [y], "o", color=colour, mec="white", ms=5, zorder=5)
        if names[step][slot]:
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": colour, "alpha": 0.85, "lw": 0.8}
            side = "left" if x < 0.5 else "right"
            axes.text(
                x, y - 0.03, short(names[step][slot], 14, 1), fontsize=7.5, ha=side, va="bottom", bbox=box, zorder=6
            )
    return centres


def _draw_graph(axes: Axes, weights: NDArray[np.float64], names: Sequence[str], colour: str, unit: str) -> None:
    """Draw the strongest edges between object classes on a circle, the least and the largest of them below it."""
    axes.set_axis_off()
    axes.set_xlim(-1.8, 1.8)
    axes.set_ylim(-1.95, 1.75)
    axes.set_aspect("equal")
    order = np.argsort(-weights, axis=None, kind="stable")[:MOST_EDGES]
    edges = [
        (int(a), int(b)) for a, b in zip(*np.unravel_index(order, weights.shape), strict=True) if weights[a, b] > 0
    ]
    nodes = sorted({end for edge in edges for end in edge})
    if not nodes:
        axes.text(0, 0, "none", ha="center", va="center", color=GREY)
        return
    angles = {node: 2 * np.pi * (place / len(nodes) + 0.25) for place, node in enumerate(nodes)}
    places = {node: (float(np.cos(angle)), float(np.sin(angle))) for node, angle in angles.items()}
    for a, b in edges:
        look: dict[str, Any] = {"path": _loop(angles[a]), "shrinkA": 0, "shrinkB": 0}
        if a != b:
            bend = "arc3,rad=0.18"
            look = {"posA": places[a], "posB": places[b], "connectionstyle": bend, "shrinkA": 6, "shrinkB": 6}
        width = 0.4 + 2.8 * float(weights[a, b] / weights.max())
        axes.add_patch(FancyArrowPatch(**look, arrowstyle="-|>", mutation_scale=9, lw=width, color=colour, alpha=0.7))
    for node, (x, y) in places.items():
        axes.plot([x], [y], "o", color=INK, ms=5)
        out = 1.62 if (node, node) in edges else 1.13
        side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
        over = "center" if abs(y) < 0.95 else "bottom" if y > 0 else "top"
        axes.text(out * x, out * y, short(names[node], 12, 1), ha=side, va=over, fontsize=9, color=INK)
    least, largest = float(weights[edges[-1]]), float(weights[edges[0]])
    axes.text(0, -1.93, f"{unit}: {least:.3g} to {largest:.3g}", ha="center", va="bottom", fontsize=8, color=GREY)


def _loop(angle: float) -> Curve:
    """Return the curve from a place on the circle to itself, outside of the circle."""
    outwards, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    start, end = (1.06 * outwards + side * 0.06 * along for side in (-1, 1))
    turns = [1.6 * outwards + side * 0.5 * along for side in (-1, 1)]
    return Curve([start, *turns, end], [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
