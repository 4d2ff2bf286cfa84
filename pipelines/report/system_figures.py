"""Figures over all systems of a table: accuracies, and the weight λ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ifcar.pipelines.comparison.columns import has_map, metric_of, title_of
from ifcar.pipelines.comparison.formats import units
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.drawing import COLOURS, GREY, INK, Drawing, new_figure, short
from ifcar.pipelines.report.gather import family

FEWEST_WEIGHTS = 3


def draw_accuracies(chapter: Chapter) -> Drawing:
    """Draw top-1 or mAP of every system: mean over seeds, each seed, and the interval over clips."""
    rows = chapter.rows()
    figure, axes = new_figure(1.1 + 0.52 * len(rows))
    letters = {system.name: letter for letter, system in chapter.pair()}
    published = any(row.metric in row.published for row in rows)
    key, title = metric_of(chapter.comparison), title_of(chapter.comparison)
    for place, row in enumerate(rows):
        colour = COLOURS.get(letters.get(row.system, ""), "#555555")
        low, high = (100 * v for v in row.interval)
        axes.plot([low, high], [place, place], color=colour, lw=2, solid_capstyle="butt", zorder=2)
        seeds = [100 * v for v in row.primary]
        axes.plot(seeds, [place + 0.22] * len(seeds), "o", mfc="none", mec=colour, ms=5, mew=1.2, ls="none", zorder=3)
        axes.plot(np.mean(seeds), place, "o", color=colour, ms=8, zorder=4)
        if row.metric in row.published:
            axes.plot(row.published[row.metric], place, "D", mfc="white", mec=INK, ms=7, zorder=5)
    baseline = next((row for row in rows if row.system == chapter.comparison.baseline), None)
    if baseline is not None:
        axes.axvline(100 * float(np.mean(baseline.primary)), color=GREY, ls="--", lw=1.2, zorder=1)
    names = [f"{letters[r.system]}: {r.system}" if r.system in letters else r.system for r in rows]
    axes.set_yticks(range(len(rows)), [short(name, 24) for name in names])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlabel(f"test {title} (%)")
    axes.grid(visible=True, axis="x")
    many = " for endlessly many clips, which lies below the mAP of few" if has_map(chapter.comparison.rows) else ""
    caption = (
        f"Test {title} on {chapter.protocol}, n = {rows[0].n:,} clips. Large dot: mean over seeds; bar: its 95 % "
        f"interval over {units(chapter.comparison)}{many}; rings below: each seed."
    )
    if baseline is not None:
        caption += f" Dashed: the mean of the baseline, {baseline.system}."
    if published:
        caption += " Diamond: the paper's figure on the same data."
    values = "; ".join(f"{r.system} {100 * np.mean(r.primary):.1f}" for r in rows)
    return Drawing(
        name="accuracy",
        title="Accuracy of every system",
        caption=caption,
        alt=f"Dot plot of test {title} in percent, mean over seeds: {values}.",
        figure=figure,
        columns=["system", "n", f"{key}_mean", f"{key}_low", f"{key}_high", "seed", key],
        rows=[
            [r.system, r.n, float(np.mean(r.primary)), *r.interval, seed, share]
            for r in rows
            for seed, share in zip(r.seeds, r.primary, strict=True)
        ],
    )


@dataclass(frozen=True, kw_only=True)
class WeightCurve:
    """Rows of a table that differ in λ only, by ascending λ."""

    weights: Sequence[float]
    rows: Sequence[ResultRow]


def weight_curves(chapter: Chapter) -> list[WeightCurve]:
    """Return every family of at least three systems that differ in the factor aux_weight only."""
    read = {system.name: system for system in chapter.systems}
    families: dict[tuple[str, str, str], dict[float, ResultRow]] = {}
    for row in chapter.rows():
        weight = row.factors.get("aux_weight")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            continue
        others = repr(sorted((k, repr(v)) for k, v in row.factors.items() if k != "aux_weight"))
        config = family(read[row.system].runs()[0].config) if row.system in read else ""
        families.setdefault((row.head, others, config), {}).setdefault(float(weight), row)
    return [
        WeightCurve(weights=sorted(by_weight), rows=[by_weight[w] for w in sorted(by_weight)])
        for by_weight in families.values()
        if len(by_weight) >= FEWEST_WEIGHTS
    ]


def draw_weights(chapter: Chapter, curve: WeightCurve, name: str) -> Drawing:
    """Draw top-1 or mAP over λ with the spread of seeds, and the line of λ = 0."""
    key, title = metric_of(chapter.comparison), title_of(chapter.comparison)
    percents = [100 * np.asarray(row.primary) for row in curve.rows]
    mean = np.array([values.mean() for values in percents])
    spread = np.array([values.std(ddof=1) if len(values) > 1 else 0.0 for values in percents])
    figure, axes = new_figure(3.7)
    axes.fill_between(curve.weights, mean - spread, mean + spread, color=COLOURS["A"], alpha=0.18, lw=0)
    for weight, values in zip(curve.weights, percents, strict=True):
        axes.plot([weight] * len(values), values, "o", mfc="none", mec=COLOURS["A"], ms=4.5, mew=1, ls="none")
    axes.plot(curve.weights, mean, "o-", color=COLOURS["A"], ms=7, label="mean over seeds")
    without = float(mean[0]) if curve.weights[0] == 0 else None
    if without is not None:
        axes.axhline(without, color=COLOURS["B"], ls="--", lw=1.6, label=f"λ = 0: {without:.1f} %")
    axes.set_xlabel("weight λ of the auxiliary loss (no unit)")
    axes.set_ylabel(f"test {title} (%)")
    axes.set_xticks(curve.weights, [f"{w:g}" for w in curve.weights])
    axes.grid(visible=True, axis="y")
    axes.legend(loc="best")
    counts = sorted({len(values) for values in percents})
    runs = " or ".join(map(str, counts))
    band = "band: ± one sample standard deviation over seeds" if counts[-1] > 1 else "one seed, so no band"
    names = [row.system for row in curve.rows]
    caption = (
        f"Test {title} against λ on {chapter.protocol}, from {names[0]} to {names[-1]}; n = {curve.rows[0].n:,} clips, "
        f"{runs} seeds a point; {band}; rings: each seed. "
    )
    caption += "Dashed: mean of λ = 0." if without is not None else "The table has no row with λ = 0, so no line of it."
    values_text = "; ".join(f"{m:.1f} at λ = {w:g}" for w, m in zip(curve.weights, mean, strict=True))
    return Drawing(
        name=name,
        title=f"{title[0].upper() + title[1:]} against λ: {curve.rows[-1].head}",
        caption=caption,
        alt=f"Line chart of mean test {title} in percent over λ: {values_text}.",
        figure=figure,
        columns=["system", "aux_weight", "n", f"{key}_mean", f"{key}_std", "seed", key],
        rows=[
            [row.system, weight, row.n, m / 100, s / 100 if len(row.primary) > 1 else None, seed, value]
            for row, weight, m, s in zip(curve.rows, curve.weights, mean, spread, strict=True)
            for seed, value in zip(row.seeds, row.primary, strict=True)
        ],
    )
