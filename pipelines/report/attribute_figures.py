"""Figures that say on which clips a system is good: by number of instances, activities and duration, and in company."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ifcar.counts import count_of
from ifcar.pipelines.comparison.statistics import bootstrap_interval
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.drawing import COLOURS, Drawing, new_figure, short
from ifcar.pipelines.report.pair_figures import ClassGain
from ifcar.pipelines.report.systems import SystemScores

MOST_VALUES = 8  # an attribute with more different values is cut into thirds
FEWEST_CLIPS = 10  # of a group: the share of fewer says little


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """Something that is known of every test clip.

    Args:
        name: of the figure's files; num_NAME is its column.
        title: what it is, as in "by TITLE".
        axis: what the axis says.
        meaning: one sentence for the caption.
        groups: (n,) place in `labels`; −1 for a clip of which it is not known.
        labels: the groups' names, in order.
    """

    name: str
    title: str
    axis: str
    meaning: str
    groups: NDArray[np.int64]
    labels: Sequence[str]


def make_attribute(
    name: str, title: str, axis: str, meaning: str, values: NDArray[np.int64], least_ratio: float = 1.0
) -> Attribute | None:
    """Group clips by a whole number, −1 where it is not known; by thirds of the clips where there are many numbers.

    A group of fewer than `FEWEST_CLIPS` clips joins its neighbour.

    Args:
        name: see `Attribute`, as the next three.
        title: see there.
        axis: see there.
        meaning: see there.
        values: (n,) the number of each clip.
        least_ratio: of the highest to the lowest number, below which clips count as alike.

    Returns:
        None when no two clips differ enough, or too few do.
    """
    known = values[values >= 0]
    found = np.unique(known)
    if len(found) < 2 or found[-1] < least_ratio * found[0]:
        return None
    tops = found.tolist()
    if len(found) > MOST_VALUES:
        tops = [*np.unique(np.quantile(known, [1 / 3, 2 / 3], method="lower")).tolist(), tops[-1]]
    tops = _wide_enough(tops, known)
    if len(tops) < 2:
        return None
    groups = np.where(values < 0, -1, np.searchsorted(tops, values))
    labels = []
    for group in range(len(tops)):
        low, high = (int(end) for end in (values[groups == group].min(), values[groups == group].max()))
        labels.append(str(low) if low == high else f"{low} … {high}")
    return Attribute(name=name, title=title, axis=axis, meaning=meaning, groups=groups, labels=labels)


def _wide_enough(tops: Sequence[int], known: NDArray[np.int64]) -> list[int]:
    """Return the highest numbers of groups of `FEWEST_CLIPS` or more: from below, a small one joins the next."""
    counts = np.bincount(np.searchsorted(tops, known), minlength=len(tops)).tolist()
    kept, waiting = list[int](), 0
    for top, count in zip(tops, counts, strict=True):
        waiting += count
        if waiting >= FEWEST_CLIPS:
            kept.append(top)
            waiting = 0
    return [*kept[:-1], tops[-1]] if kept else []


def _shares(system: SystemScores, attribute: Attribute, groups: Sequence[int]) -> list[tuple[int, float, float, float]]:
    """Return of each group its clips, the share of right ones and the ends of that share's interval."""
    right, shares = system.mean_right(), []
    for group in groups:
        inside = attribute.groups == group
        mine = right[inside]
        shares.append((len(mine), float(mine.mean()), *bootstrap_interval(mine, system.segments[inside])))
    return shares


def _draw_shares(
    axes: Axes, shares: Sequence[tuple[int, float, float, float]], letter: str, name: str, side: float
) -> None:
    mean, low, high = 100 * np.array(shares)[:, 1:].T
    axes.errorbar(
        np.arange(len(mean)) + side,
        mean,
        yerr=np.maximum(0, np.stack([mean - low, high - mean])),
        fmt="o-" if letter == "A" else "s--",
        ms=7,
        capsize=4,
        elinewidth=1.4,
        color=COLOURS[letter],
        label=short(f"{letter}: {name}", 40, 1),
    )


def draw_attribute(chapter: Chapter, attribute: Attribute) -> Drawing:
    """Draw the share of A and B over the groups of an attribute."""
    assert chapter.a is not None
    key, measure = chapter.a.kind.clip_measure
    figure, axes = new_figure(3.7)
    places = [g for g in range(len(attribute.labels)) if (attribute.groups == g).any()]
    rows: list[list[object]] = []
    words = []
    pair = {system.name: (letter, side) for (letter, system), side in zip(chapter.pair(), (-0.09, 0.09), strict=False)}
    for system in sorted(chapter.systems, key=lambda s: pair.get(s.name, ("C", 0))):
        shares = _shares(system, attribute, places)
        rows += [[system.name, attribute.labels[g], *own] for g, own in zip(places, shares, strict=True)]
        if system.name in pair:
            letter, side = pair[system.name]
            _draw_shares(axes, shares, letter, system.name, side)
            shown = ", ".join(
                f"{100 * own[1]:.1f} at {attribute.labels[g]}" for g, own in zip(places, shares, strict=True)
            )
            words.append(f"{letter}: {shown}")
    counts = [int((attribute.groups == g).sum()) for g in places]
    names = [attribute.labels[g] for g in places]
    axes.set_xticks(range(len(places)), [f"{v}\nn = {n}" for v, n in zip(names, counts, strict=True)])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel(attribute.axis)
    axes.set_ylabel(f"test {measure} (%)")
    axes.grid(visible=True, axis="y")
    axes.legend(loc="best")
    missing = int((attribute.groups < 0).sum())
    caption = (
        f"Test {measure}, mean over seeds, of {attribute.meaning}. {chapter.a.kind.clip_meaning}Error bars: 95 % "
        f"bootstrap interval over the n clips below each point, those of a segment or group drawn together. "
        f"n = {sum(counts):,} in all"
    )
    caption += f"; {count_of(missing, 'clip has')} no view in the cache." if missing else "."
    if len(chapter.systems) > len(pair):
        caption += " The numbers hold the other systems as well."
    return Drawing(
        name=attribute.name,
        title=f"{measure[0].upper() + measure[1:]} by {attribute.title}",
        caption=caption,
        alt=f"Test {measure} in percent over the {attribute.title}. {'; '.join(words)}.",
        figure=figure,
        columns=["system", f"num_{attribute.name}", "n", key, f"{key}_low", f"{key}_high"],
        rows=rows,
    )


def draw_company(chapter: Chapter, gains: Sequence[ClassGain], labels: NDArray[np.bool_]) -> Drawing:
    """Draw the average precision of A and B on each class over how many other activities its clips show.

    Args:
        chapter: names A and B.
        gains: of every class with test clips.
        labels: (n, K) of the test clips.

    Source: Wang and Gupta 2018, Fig. 5, "part of a sequence"; here a number of the class instead of a rating.
    """
    assert chapter.a is not None
    others = labels.sum(axis=1) - 1
    company = {int(k): float(others[labels[:, k]].mean()) for k in np.flatnonzero(labels.any(axis=0))}
    points = sorted(((company[g.number], g) for g in gains), key=lambda point: (point[0], point[1].name))
    x = np.array([at for at, _ in points])
    figure, axes = new_figure(3.7)
    thirds = [part for part in np.array_split(np.arange(len(points)), min(3, len(points))) if len(part)]
    words = []
    for letter, system, marker in zip("AB", (chapter.a, chapter.b), ("o", "s"), strict=True):
        assert system is not None
        y = 100 * np.array([gain.a if letter == "A" else gain.b for _, gain in points])
        axes.plot(x, y, marker, color=COLOURS[letter], mfc="none", ms=5, mew=1.2, alpha=0.75)
        means = [float(y[part].mean()) for part in thirds]
        axes.plot(
            [float(x[part].mean()) for part in thirds],
            means,
            f"{marker}-" if letter == "A" else f"{marker}--",
            color=COLOURS[letter],
            ms=8,
            label=short(f"{letter}: {system.name}", 40, 1),
        )
        words.append(f"{letter} {', '.join(f'{m:.1f}' for m in means)}")
    axes.set_xlabel("other activities in a clip of the class, mean")
    axes.set_ylabel("test AP (%)")
    axes.grid(visible=True)
    axes.legend(loc="best")
    return Drawing(
        name="company",
        title="AP by company",
        caption=f"Average precision on each of {len(points)} classes (rings), means over seeds, over how many other "
        "activities the class's test clips show: right is what comes in sequences or together with others. Line: means "
        f"over {len(thirds)} equal parts of the classes. {chapter.a.kind.class_meaning}".rstrip(),
        alt="Average precision of classes in percent over the number of other activities, means of parts from few to "
        f"many: {'; '.join(words)}.",
        figure=figure,
        columns=["class", "n", "other_activities", "ap_a", "ap_b"],
        rows=[[gain.name, gain.n, at, gain.a, gain.b] for at, gain in points],
    )
