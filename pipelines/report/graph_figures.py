"""What STRG's graphs link: nearest neighbours in the similarity graph, and chains of overlapping boxes over time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from numpy.typing import NDArray

from ifcar.cache.schema import Category
from ifcar.pipelines.report.drawing import Drawing
from ifcar.pipelines.report.panels import ClipSteps, draw_box, panel_figure, read_steps, show_frame
from ifcar.pipelines.report.trained import TrainedHead
from ifcar.pipelines.report.views import CachedViews

MOST_STEPS, NUM_NEIGHBOURS = 8, 5
QUERY, NEIGHBOUR, OTHER = "#e69f00", "#0072b2", "#6fae8f"
CHAIN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
Node = tuple[int, int]  # step, slot


def chains(links: NDArray[np.float64], categories: NDArray[np.uint8]) -> list[list[Node]]:
    """Follow the strongest link from step to step, from every box that none before it was linked to.

    Args:
        links: (T′ − 1, N, N), see `STRG.explain`.
        categories: (T′, N).

    Returns:
        Chains of at least two boxes, the longest first. A box belongs to one chain, that with the strongest link to it.
    """
    real = [[int(slot) for slot in np.flatnonzero(step > 0)] for step in categories]
    open_chains: dict[int, list[Node]] = {slot: [(0, slot)] for slot in real[0]}
    done: list[list[Node]] = []
    for step, weights in enumerate(links):
        wanted: dict[int, tuple[float, int]] = {}
        for slot in open_chains:
            best = int(weights[slot].argmax())
            strength = float(weights[slot, best])
            if strength > 0 and strength > wanted.get(best, (0.0, -1))[0]:
                wanted[best] = (strength, slot)
        following = {best: [*open_chains[slot], (step + 1, best)] for best, (_, slot) in wanted.items()}
        gone = {slot for _, slot in wanted.values()}
        done += [chain for slot, chain in open_chains.items() if slot not in gone]
        for slot in real[step + 1]:
            following.setdefault(slot, [(step + 1, slot)])
        open_chains = following
    done += open_chains.values()
    return sorted((chain for chain in done if len(chain) > 1), key=lambda chain: (-len(chain), chain))


def choose_query(clip: ClipSteps) -> Node | None:
    """Return the box whose neighbours are drawn: at the middle shown step, an object if there is one, else any."""
    step = int(clip.steps[len(clip.steps) // 2])
    real = np.flatnonzero(clip.categories[step] > 0)
    objects = np.flatnonzero(clip.categories[step] == Category.OBJECT)
    if not len(real):
        return None
    return step, int(objects[0] if len(objects) else real[0])


def draw_neighbours(trained: TrainedHead, views: CachedViews, clip_id: str, name: str) -> Drawing | None:
    """Draw a box and its nearest neighbours in the similarity graph; None where the clip has no box to ask.

    Source: Wang and Gupta 2018, Fig. 3.
    """
    clip = read_steps(views, clip_id, MOST_STEPS)
    query = choose_query(clip)
    if query is None:
        return None
    weights = trained.explain(views, clip_id)["similarity"].numpy()[query]
    weights[query] = -1.0
    order = np.argsort(-weights, axis=None, kind="stable")[:NUM_NEIGHBOURS]
    nearest = [(int(t), int(n)) for t, n in zip(*np.unravel_index(order, weights.shape), strict=True)]
    nearest = [node for node in nearest if weights[node] > 0]
    figure, panels = _step_panels(clip)
    for place, step in enumerate(clip.steps):
        for slot in np.flatnonzero(clip.categories[step] > 0):
            node = (int(step), int(slot))
            if node not in nearest and node != query:
                draw_box(panels[place], clip.boxes[node], OTHER, width=0.8)
        for node in (n for n in nearest if n[0] == step):
            draw_box(panels[place], clip.boxes[node], NEIGHBOUR, width=2.2)
            _write(panels[place], clip.boxes[node], percent(weights[node]), NEIGHBOUR)
        if step == query[0]:
            draw_box(panels[place], clip.boxes[query], QUERY, width=2.8)
    hidden = sum(node[0] not in clip.steps for node in nearest)
    number = int(clip.numbers[list(clip.steps).index(query[0])])
    caption = (
        f"{trained.system}, seed {trained.run.metrics[0].seed}: the box asked about (orange, frame {number}, slot "
        f"{query[1]}) and its {len(nearest)} nearest neighbours among all boxes of all steps (blue, with their weight "
        "in the similarity graph); thin: the other boxes."
    )
    if hidden:
        caption += f" {hidden} of the neighbours {'lies in a step' if hidden == 1 else 'lie in steps'} not shown."
    real = int((clip.categories > 0).sum())
    return Drawing(
        name=name,
        title=f"Similarity graph, clip {clip_id}",
        caption=f"{caption} An even weight would be {percent(1 / max(1, real))}.",
        alt=f"Frames of clip {clip_id} with one box and its nearest neighbours: "
        + ", ".join(f"step {t + 1} slot {n} {percent(weights[t, n])}" for t, n in nearest),
        figure=figure,
        columns=["clip", "query_step", "query_slot", "step", "slot", "weight"],
        rows=[[clip_id, query[0], query[1], t, n, float(weights[t, n])] for t, n in nearest],
        wide=True,
        alone=True,
    )


def draw_chains(trained: TrainedHead, views: CachedViews, clip_id: str, name: str) -> Drawing | None:
    """Draw the chains of boxes that the front graph links; None where no box overlaps one of the next step.

    Source: Wang and Gupta 2018, Fig. 4.
    """
    clip = read_steps(views, clip_id, MOST_STEPS)
    links = trained.explain(views, clip_id)["front"].numpy()
    found = chains(links, clip.categories)[: len(CHAIN_COLOURS)]
    if not found:
        return None
    figure, panels = _step_panels(clip)
    places = {int(step): place for place, step in enumerate(clip.steps)}
    for chain, colour in zip(found, CHAIN_COLOURS, strict=False):
        seen = [node for node in chain if node[0] in places]
        for node in seen:
            draw_box(panels[places[node[0]]], clip.boxes[node], colour, width=2.0)
        for before, after in pairwise(seen):
            arrow = ConnectionPatch(
                xyA=tuple(clip.boxes[before][:2]),
                xyB=tuple(clip.boxes[after][:2]),
                coordsA="data",
                coordsB="data",
                axesA=panels[places[before[0]]],
                axesB=panels[places[after[0]]],
                arrowstyle="->",
                color=colour,
                lw=1.4,
                shrinkA=3,
                shrinkB=3,
            )
            figure.add_artist(arrow)
    rows: list[list[object]] = [
        [clip_id, number, t, n, None if place == 0 else float(links[t - 1, chain[place - 1][1], n])]
        for number, chain in enumerate(found)
        for place, (t, n) in enumerate(chain)
    ]
    return Drawing(
        name=name,
        title=f"Space-time chains, clip {clip_id}",
        caption=f"The {len(found)} longest chains of boxes that overlap from one step to the next, each by its "
        "strongest link in the front graph, a colour each; arrows point forwards in time. The graph "
        "depends on the boxes only.",
        alt=f"Frames of clip {clip_id} with chains of boxes over "
        + ", ".join(f"steps {chain[0][0] + 1} to {chain[-1][0] + 1}" for chain in found),
        figure=figure,
        columns=["clip", "chain", "step", "slot", "weight"],
        rows=rows,
        wide=True,
        alone=True,
    )


def percent(share: float) -> str:
    """Return a weight in whole percent."""
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _write(axes: Axes, box: NDArray[np.float32], text: str, colour: str) -> None:
    """Write into the upper left corner of a box."""
    left, top = (max(0.02, float(box[k] - box[k + 2] / 2)) for k in (0, 1))
    ground = {"facecolor": colour, "edgecolor": "none", "pad": 1.0}
    axes.text(left, top, text, fontsize=8, color="white", va="top", bbox=ground)


def _step_panels(clip: ClipSteps) -> tuple[Figure, list[Axes]]:
    figure, axes = panel_figure(1, len(clip.steps), extra_inch=0.2)
    for place, number in enumerate(clip.numbers):
        show_frame(axes[0, place], clip, place)
        axes[0, place].set_title(f"frame {number}", fontsize=10)
    return figure, list(axes[0])
