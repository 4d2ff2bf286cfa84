"""What trained heads look at: which system's head and which clips are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ifcar.pipelines.report.activity_figures import draw_activity_maps
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.drawing import Drawing
from ifcar.pipelines.report.graph_figures import draw_chains, draw_neighbours
from ifcar.pipelines.report.relation_figures import NUM_CLASSES, OBJECT_CLASSES, draw_interactions, draw_moments
from ifcar.pipelines.report.systems import SystemScores
from ifcar.pipelines.report.trained import load_first, spread
from ifcar.pipelines.report.views import CachedViews

NUM_CLIPS = 2


def activity_drawings(chapter: Chapter, views: CachedViews, classes: Sequence[str]) -> tuple[str, list[Drawing]]:
    """Return a title, and maps of activity-specific features where a system of the table has them.

    The clips are those with the most activities, at even distances in the order of label and id.
    """
    title = "Activities: where their features come from"
    trained = load_first(chapter, views, {"activity_maps"})
    if trained is None or chapter.a is None:
        return title, []
    labels = chapter.a.labels(len(classes))
    drawings = []
    for number, place in enumerate(_choose(chapter.a, labels.sum(axis=1), views)):
        clip_id, activities = str(chapter.a.clip_ids[place]), np.flatnonzero(labels[place]).tolist()
        drawings.append(draw_activity_maps(trained, views, clip_id, activities, classes, f"activities-{number + 1}"))
    return title, drawings


def graph_drawings(chapter: Chapter, views: CachedViews, classes: Sequence[str]) -> tuple[str, list[Drawing]]:
    """Return a title, and neighbours and chains in the graphs of the table's first STRG.

    The clips are those with the most instances, at even distances in the order of label and id.
    """
    title = "Graphs: what STRG links"
    trained = load_first(chapter, views, {"similarity", "front"})
    if trained is None or chapter.a is None:
        return title, []
    counts = views.num_instances(chapter.a.clip_ids.tolist())
    drawings: list[Drawing | None] = []
    for number, place in enumerate(_choose(chapter.a, counts, views)):
        clip_id = str(chapter.a.clip_ids[place])
        found = trained.explain(views, clip_id)
        if "similarity" in found:
            drawings.append(draw_neighbours(trained, views, clip_id, f"neighbours-{number + 1}"))
        if "front" in found:
            drawings.append(draw_chains(trained, views, clip_id, f"chains-{number + 1}"))
    return title, [drawing for drawing in drawings if drawing is not None]


def relation_drawings(chapter: Chapter, views: CachedViews, classes: Sequence[str]) -> tuple[str, list[Drawing]]:
    """Return a title, interaction graphs of the commonest classes, and moments that the table's first ORN relates.

    The clips whose moments are drawn are those with the most instances, at even distances in the order of label and id.
    """
    title = "Relations: what ORN relates over time"
    trained = load_first(chapter, views, {"relations"})
    if trained is None or chapter.a is None:
        return title, []
    drawings: list[Drawing | None] = []
    ids, shown = chapter.a.clip_ids.tolist(), chapter.a.labels(len(classes)) > 0
    common = np.argsort(-shown.sum(axis=0), kind="stable")[:NUM_CLASSES]
    if OBJECT_CLASSES in views.reader.spec:
        clips = [(classes[k], [ids[n] for n in np.flatnonzero(shown[:, k]) if ids[n] in views.rows]) for k in common]
        drawings.append(draw_interactions(trained, views, [own for own in clips if own[1]], "interactions"))
    for number, place in enumerate(_choose(chapter.a, views.num_instances(ids), views)):
        drawings.append(draw_moments(trained, views, ids[place], f"moments-{number + 1}"))
    return title, [drawing for drawing in drawings if drawing is not None]


def _choose(system: SystemScores, counts: NDArray[np.int64], views: CachedViews) -> list[int]:
    """Return places of the test clips with the highest counts that have a view."""
    ids = system.clip_ids.tolist()
    known = [place for place in range(len(ids)) if ids[place] in views.rows]
    fewest = sorted((int(counts[place]) for place in known), reverse=True)[:NUM_CLIPS]
    order = sorted(known, key=lambda place: (np.atleast_1d(system.targets[place]).tolist(), ids[place]))
    return spread([place for place in order if counts[place] >= min(fewest)], NUM_CLIPS)
