"""Figures that look at A and B closely: gains by class, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from ifcar.counts import count_of
from ifcar.pipelines.comparison.statistics import Jackknifed, paired_bootstrap, population_precisions
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.drawing import GAIN, INK, LOSS, ON_LIGHT, Drawing, new_figure, short
from ifcar.pipelines.report.systems import SystemScores

NUM_EXTREMES = 5
MOST_CLASSES = 20
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#cfe3f1", "#5aa2cf", "#0072b2", "#00344f"])
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassGain:
    """How A and B do on one class; top-1, or the estimated average precision of endlessly many such clips, as shares.

    All are means over seeds.

    Args:
        name: the class.
        number: of the class, from 0.
        n: its test clips.
        a: A's share.
        b: B's share.
        difference: A − B.
        low: of its 95 % interval over clips.
        high: of the same.
    """

    name: str
    number: int
    n: int
    a: float
    b: float
    difference: float
    low: float
    high: float


def class_gains(a: SystemScores, b: SystemScores, classes: Sequence[str]) -> list[ClassGain]:
    """Return the classes that have test clips, the largest gain of A over B first."""
    labels = a.labels(len(classes))
    shown = [int(k) for k in np.flatnonzero(labels.any(axis=0))]
    if a.kind.exclusive:
        ours, other = a.mean_right(), b.mean_right()
        shares = [right @ labels / np.maximum(1, labels.sum(axis=0)) for right in (ours, other)]
        tests = {k: paired_bootstrap(ours[labels[:, k]], other[labels[:, k]], a.segments[labels[:, k]]) for k in shown}
    else:
        estimates = [class_estimates(system) for system in (a, b)]
        shares = [{k: of[k].value for k in shown} for of in estimates]
        tests = {k: (estimates[0][k] - estimates[1][k]).test(a.segments) for k in shown}
    gains = [
        ClassGain(
            name=classes[k],
            number=k,
            n=int(labels[:, k].sum()),
            a=float(shares[0][k]),
            b=float(shares[1][k]),
            difference=tests[k].difference,
            low=tests[k].low,
            high=tests[k].high,
        )
        for k in shown
    ]
    return sorted(gains, key=lambda g: -g.difference)


def class_estimates(system: SystemScores) -> dict[int, Jackknifed]:
    """Return the average precision that endlessly many such clips would give, of each class with test clips."""
    each = [population_precisions(logits, system.targets, system.kind) for logits in system.logits()]
    return {k: Jackknifed.mean([of[k] for of in each]) for k in each[0]}


def draw_gains(chapter: Chapter, gains: Sequence[ClassGain]) -> Drawing:
    """Draw the five largest gains of A over B and the five largest losses."""
    assert chapter.a is not None and chapter.b is not None
    key, measure = chapter.a.kind.class_measure
    num = min(NUM_EXTREMES, len(gains) // 2)
    shown = list(gains) if len(gains) <= 2 * NUM_EXTREMES else [*gains[:num], *gains[-num:]]
    names = [f"{short(gain.name, 28, 3)} ({gain.n})" for gain in shown]
    figure, axes = new_figure(1.2 + sum(0.36 + 0.1 * name.count("\n") for name in names))
    for place, gain in enumerate(shown):
        colour, hatch = (GAIN, "") if gain.difference >= 0 else (LOSS, "////")
        axes.barh(place, 100 * gain.difference, color=colour, hatch=hatch, ec="white", height=0.68, zorder=2)
        axes.plot([100 * gain.low, 100 * gain.high], [place, place], color=INK, lw=1.1, zorder=3)
    if len(shown) < len(gains):
        axes.axhline(num - 0.5, color="#bbbbbb", lw=1, ls=":")
    axes.axvline(0, color=INK, lw=1, zorder=4)
    axes.set_yticks(range(len(shown)), names, fontsize=10)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(f"A − B, {measure} (points)")
    axes.grid(visible=True, axis="x", zorder=0)
    ahead, behind = sum(g.difference > 0 for g in gains), sum(g.difference < 0 for g in gains)
    what = "All classes" if len(shown) == len(gains) else f"The {num} classes with the largest and the {num} with the "
    what += "" if len(shown) == len(gains) else "smallest difference"
    seeds = " and ".join(str(len(system.seeds)) for system in (chapter.a, chapter.b))
    caption = (
        f"{what}, of {len(gains)} with test clips: {measure} of A ({chapter.a.name}) minus {measure} of B "
        f"({chapter.b.name}), each a mean over its seeds ({seeds}); in brackets the class's test clips. Thin line: "
        "95 % interval over clips or, as in the table, groups of them, not corrected for looking at many classes. "
        f"{chapter.a.kind.class_meaning}"
        f"A is ahead on {ahead} classes, behind on {behind}, level on {len(gains) - ahead - behind}."
    )
    values = "; ".join(f"{g.name} {100 * g.difference:+.1f}" for g in shown)
    return Drawing(
        name="gains",
        title="Largest gains and losses",
        caption=caption,
        alt=f"Bar chart of the difference in {measure} between A and B in percentage points: {values}.",
        figure=figure,
        columns=["class", "n", f"{key}_a", f"{key}_b", "difference", "difference_low", "difference_high"],
        rows=[[g.name, g.n, g.a, g.b, g.difference, g.low, g.high] for g in gains],
    )


def confusion(targets: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Counts:
    """Return (K, K) how many clips of each class (row) have each class as their most probable one (column)."""
    num = probabilities.shape[1]
    counts: Counts = np.bincount(targets * num + probabilities.argmax(axis=1), minlength=num * num).reshape(num, num)
    return counts


def most_confused(counts: Sequence[Counts]) -> NDArray[np.int64]:
    """Return the classes that occur, or those of the most frequent errors where more than `MOST_CLASSES` occur."""
    total = np.sum(counts, axis=0)
    occurring = np.flatnonzero(total.sum(axis=0) + total.sum(axis=1))
    if len(occurring) <= MOST_CLASSES:
        return occurring
    errors = total - np.diag(np.diag(total))
    chosen: set[int] = set()
    for pair in np.argsort(-errors, axis=None, kind="stable"):
        both = chosen | {int(k) for k in np.unravel_index(pair, errors.shape)}
        if len(both) > MOST_CLASSES:
            break
        chosen = both
    return np.array(sorted(chosen))


def _draw_matrix(axes: Axes, counts: Counts, shares: NDArray[np.float64]) -> AxesImage:
    """Draw counts as numbers on the shades of their rows' shares."""
    image = axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e8e8e8", lw=0.7)
    size_of_text = 8.0 if counts.max(initial=0) < 100 else 6.0
    for row, column in zip(*np.nonzero(counts), strict=True):
        shade = "white" if shares[row, column] > 0.45 else ON_LIGHT
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size_of_text, color=shade)
    axes.set_xlabel("most probable class (number as on the left)")
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
    return image


def draw_confusion(
    chapter: Chapter, letter: str, system: SystemScores, counts: Counts, shown: NDArray[np.int64]
) -> Drawing:
    """Draw which classes one system takes for which."""
    assert chapter.data is not None
    classes = chapter.data.classes
    part = counts[np.ix_(shown, shown)]
    size = counts.sum(axis=1)
    figure, axes = new_figure(1.9 + 0.3 * len(shown))
    image = _draw_matrix(axes, part, part / np.maximum(1, size[shown])[:, None])
    numbers = [str(k + 1) for k in shown]
    axes.set_xticks(range(len(shown)), numbers, fontsize=8.5, rotation=90 if shown.max(initial=0) > 98 else 0)
    axes.set_yticks(range(len(shown)), [f"{short(classes[k], 26)}  {k + 1}" for k in shown], fontsize=8)
    bar = figure.colorbar(image, ax=axes, location="top", shrink=0.6, aspect=30, pad=0.02)
    bar.ax.tick_params(labelsize=9)
    bar.set_label(f"{letter}: {short(system.name, 40, 1)} – share of the class's clips", fontsize=10)
    bar.outline.set_visible(False)
    errors = int(counts.sum() - np.trace(counts))
    hidden = int(counts.sum() - part.sum())
    which = (
        f" Shown: the {len(shown)} classes of the most frequent errors of A and B; the numbers hold all."
        if hidden
        else ""
    )
    caption = (
        f"{letter} ({system.name}): classes (rows) and what they are taken for (columns), in clips; n = "
        f"{int(counts.sum()):,}, {errors:,} of them off the diagonal. Prediction: the most probable class of the "
        f"probabilities averaged over {count_of(len(system.seeds), 'seed')}.{which}"
    )
    pairs = [(int(counts[i, j]), classes[i], classes[j]) for i, j in zip(*np.nonzero(counts), strict=True) if i != j]
    worst = "; ".join(f"{m} of {i} as {j}" for m, i, j in sorted(pairs, key=lambda p: -p[0])[:5])
    return Drawing(
        name=f"confusion-{letter.lower()}",
        title=f"Confusion of {letter}",
        caption=caption,
        alt=f"Matrix of classes and predictions. Most frequent errors: {worst or 'none'}.",
        figure=figure,
        columns=["class", "predicted", "clips", "share_of_class"],
        rows=[
            [classes[i], classes[j], int(counts[i, j]), float(counts[i, j] / size[i])]
            for i, j in zip(*np.nonzero(counts), strict=True)
        ],
        wide=True,
    )
