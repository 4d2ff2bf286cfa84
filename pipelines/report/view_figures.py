"""What more views of a clip are worth: the measure against the plain and augmented views that runs used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ifcar.pipelines.comparison.columns import metric_of, title_of
from ifcar.pipelines.comparison.formats import units
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.extraction.hours import hours_a_row
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.drawing import COLOURS, Drawing, new_figure
from ifcar.pipelines.report.gather import view_family
from ifcar.pipelines.report.views import CachedViews
from ifcar.pipelines.runs.config import RunConfig

FEWEST_POINTS = 2
MARKS = ("o-", "s--", "D-.", "^:")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewPoint:
    """A row of a table, and what it would take to have just the views that it used.

    Args:
        row: of the table.
        views: plain views of a clip, V.
        augmented_views: of a training clip besides, A.
        rows: of a cache of the protocol's clips: V of each, and A of a training clip.
        size_bytes: of these rows, without checksums.
        hours: that their extraction takes, by the mean of the cache's rows; None where that is not known.
    """

    row: ResultRow
    views: int
    augmented_views: int
    rows: int
    size_bytes: int
    hours: float | None


def view_curves(chapter: Chapter, cache: CachedViews | str) -> list[list[ViewPoint]]:
    """Return every family of systems that differ in the views that they used only, the smallest first.

    A system that does not say how many it used has all that the cache has, which the cache must be at hand to tell.
    """
    families: dict[str, list[ViewPoint]] = {}
    by_name = {system.name: system for system in chapter.systems}
    everything = (None, None) if isinstance(cache, str) else (cache.reader.num_views, _num_augmented(cache))
    for row in chapter.rows():
        config = by_name[row.system].runs()[0].config if row.system in by_name else None
        if not isinstance(config, RunConfig) or chapter.data is None:
            continue
        given = (config.views, config.augmented_views)
        views, augmented = (own if own is not None else total for own, total in zip(given, everything, strict=True))
        if views is None or augmented is None:
            continue
        data = chapter.data
        num_rows = views * (data.num_train + data.num_test) + augmented * data.num_train
        size = num_rows * data.spec.row_bytes([array.name for array in data.spec.arrays])
        took = None if isinstance(cache, str) else hours_a_row(cache.reader.path)
        point = ViewPoint(
            row=row,
            views=views,
            augmented_views=augmented,
            rows=num_rows,
            size_bytes=size,
            hours=None if took is None else took * num_rows,
        )
        families.setdefault(view_family(config), []).append(point)
    curves = [sorted(points, key=lambda p: (p.size_bytes, p.views)) for points in families.values()]
    return [points for points in curves if len({(p.views, p.augmented_views) for p in points}) >= FEWEST_POINTS]


def _num_augmented(cache: CachedViews) -> int:
    return int(cache.reader.manifest.num_augmented_views)


def draw_views(chapter: Chapter, points: Sequence[ViewPoint], name: str) -> Drawing:
    """Draw top-1 or mAP over the size of the views used; a line joins points of as many augmented, or plain, views."""
    key, title = metric_of(chapter.comparison), title_of(chapter.comparison)
    figure, axes = new_figure(3.9)
    lines = _lines(points)
    for place, (label, line) in enumerate(lines):
        x = [p.size_bytes / 1e9 for p in line]
        percents = [100 * np.asarray(p.row.primary) for p in line]
        colour = COLOURS["A"] if place % 2 == 0 else COLOURS["B"]
        axes.plot(x, [v.mean() for v in percents], MARKS[place % len(MARKS)], color=colour, ms=7, label=label, zorder=3)
        for at, values in zip(x, percents, strict=True):
            axes.plot([at] * len(values), values, "o", mfc="none", mec=colour, ms=4.5, mew=1, ls="none", zorder=2)
        for at, values, point in zip(x, percents, line, strict=True):
            text = f"{point.views}+{point.augmented_views}"
            axes.annotate(text, (at, values.mean()), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set_xlabel("size of the views used (GB)")
    axes.set_ylabel(f"test {title} (%)")
    axes.grid(visible=True, axis="y")
    axes.margins(y=0.15)
    axes.legend(loc="best")
    first = points[0].row
    measured = [f"{key}_mean", f"{key}_low", f"{key}_high", "seed", key]
    seeds = " or ".join(map(str, sorted({len(p.row.seeds) for p in points})))
    caption = (
        f"Test {title} on {chapter.protocol} with fewer views of each clip than the cache has, over what these take in "
        f"a cache of the protocol's clips; V + A beside each point: plain views of every clip, which tests average, "
        f"and augmented ones of a training clip. n = {first.n:,} clips, {seeds} seeds a point; rings: each seed. "
        f"Intervals over {units(chapter.comparison)} are in the numbers{_hours_of(points)}."
    )
    values_text = "; ".join(
        f"{100 * float(np.mean(p.row.primary)):.1f} with {p.views} + {p.augmented_views}" for p in points
    )
    return Drawing(
        name=name,
        title=f"{title[0].upper() + title[1:]} against views: {first.head}",
        caption=caption,
        alt=f"Line chart of mean test {title} in percent over plain and augmented views: {values_text}.",
        figure=figure,
        columns=["system", "views", "augmented_views", "rows", "gigabytes", "hours", "n", *measured],
        rows=[
            [*_facts(p), float(np.mean(p.row.primary)), *p.row.interval, seed, value]
            for p in points
            for seed, value in zip(p.row.seeds, p.row.primary, strict=True)
        ],
    )


def _hours_of(points: Sequence[ViewPoint]) -> str:
    """Return what extraction took for the fewest and for the most views, where that is known."""
    known = [point.hours for point in points if point.hours is not None]
    if not known:
        return ""
    least, most = min(known), max(known)
    unit, factor = ("hours", 1.0) if most >= 2 else ("minutes", 60.0)
    return (
        f"; extracting them took {factor * least:.1f} to {factor * most:.1f} {unit} on the machine that made the cache"
    )


def _facts(point: ViewPoint) -> list[object]:
    used = (point.views, point.augmented_views, point.rows, point.size_bytes / 1e9, point.hours)
    return [point.row.system, *used, point.row.n]


def _lines(points: Sequence[ViewPoint]) -> list[tuple[str, list[ViewPoint]]]:
    """Return the points of as many augmented views as one line each, and of as many plain ones, where there are two."""
    lines = []
    for word, own in (("augmented", "augmented_views"), ("plain", "views")):
        for count in sorted({getattr(p, own) for p in points}):
            line = [p for p in points if getattr(p, own) == count]
            if len(line) >= FEWEST_POINTS:
                lines.append((f"{count} {word}", line))
    return lines or [("mean over seeds", list(points))]
