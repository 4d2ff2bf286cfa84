"""Figures of what trained systems go by: how far the measure falls under each intervention, and which classes fall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from ifcar.counts import count_of
from ifcar.pipelines.comparison.columns import points
from ifcar.pipelines.diagnosis.store import Diagnosis, DiagnosisRow, read_diagnosis
from ifcar.pipelines.labels.contract import MEASURES
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.drawing import COLOURS, GAIN, GREY, LOSS, ON_LIGHT, Drawing, new_figure, short
from ifcar.pipelines.report.systems import SystemScores
from ifcar.pipelines.runs.config import RunConfig, run_id

MOST_CLASSES = 20
CHANGES = LinearSegmentedColormap.from_list("changes", [LOSS, "#ffffff", GAIN])


def diagnoses_of(chapter: Chapter) -> list[tuple[str, Diagnosis]]:
    """Return the diagnosis of each system whose runs' folders hold one, with the system's name; of most runs first.

    Raises:
        InputError: a diagnosis is damaged.
    """
    found = [(system.name, _largest(system)) for system in chapter.systems]
    return [(name, diagnosis) for name, diagnosis in found if diagnosis is not None]


def _largest(system: SystemScores) -> Diagnosis | None:
    """Return the diagnosis that covers most runs of a system; one of runs that have since been made anew is none."""
    read = [diagnosis for run in system.runs() if (diagnosis := read_diagnosis(run.path)) is not None]
    ids = {run_id(run.config) for run in system.runs() if read and isinstance(run.config, RunConfig)}
    fit = [diagnosis for diagnosis in read if ids.issuperset(diagnosis.run_ids)]
    return max(fit, key=lambda diagnosis: len(diagnosis.run_ids), default=None)


def draw_diagnosis(system: str, diagnosis: Diagnosis, name: str) -> Drawing:
    """Draw the difference that each intervention makes: mean over seeds, each seed, and the interval over clips."""
    rows, key, title = diagnosis.rows[1:], diagnosis.metric, MEASURES[diagnosis.metric]
    before = np.asarray(diagnosis.rows[0].primary)
    figure, axes = new_figure(1.2 + 0.42 * len(rows))
    axes.axvline(0, color=GREY, ls="--", lw=1.2, zorder=1)
    words = []
    for place, row in enumerate(rows):
        if row.against is None:
            axes.text(0, place, f" {row.state}", color="#555555", va="center", fontsize=10, style="italic")
            words.append(f"{row.name} {row.state}")
            continue
        each = 100 * (np.asarray(row.primary) - before)
        colour = COLOURS["B"] if row.against.high < 0 else "#555555"
        axes.plot([100 * row.against.low, 100 * row.against.high], [place, place], color=colour, lw=2, zorder=2)
        axes.plot(each, [place + 0.24] * len(each), "o", mfc="none", mec=colour, ms=4.5, mew=1.1, ls="none", zorder=3)
        axes.plot(100 * row.against.difference, place, "o", color=colour, ms=7, zorder=4)
        words.append(f"{row.name} {points(row.against.difference)}")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"difference in test {title} (points)")
    axes.grid(visible=True, axis="x")
    share = 100 * float(before.mean())
    return Drawing(
        name=name,
        title=f"What {system} goes by",
        caption=f"{system} on {diagnosis.n:,} test clips, {title} {share:.1f} % as trained, with the same weights on "
        "clips of which a part is swapped, hidden, out of order or jittered. Large dot: mean difference over "
        f"{count_of(len(diagnosis.seeds), 'seed')}; bar: its 95 % interval over clips; "
        "rings: each seed; orange: the interval lies below zero. Not read: the head reads nothing that is changed; "
        "unchanged: it reads it, and no score changes.",
        alt=f"Dot plot of differences in test {title} in points: {'; '.join(words)}.",
        figure=figure,
        columns=["intervention", "state", "n", "difference", "low", "high", "seed", key],
        rows=[
            [row.name, row.state, diagnosis.n, *_test(row), seed, share]
            for row in rows
            for seed, share in _by_seed(diagnosis, row)
        ],
    )


def draw_class_changes(system: str, diagnosis: Diagnosis, name: str) -> Drawing | None:
    """Draw by how much each class's score changes under each intervention; None where nothing was measured."""
    rows = [row for row in diagnosis.rows[1:] if row.against is not None]
    if not rows:
        return None
    changes = [diagnosis.class_changes(row) for row in rows]
    largest = {c: max(abs(found[c]) for found in changes) for c in changes[0]}
    chosen = sorted(sorted(largest, key=lambda c: -largest[c])[:MOST_CLASSES], key=diagnosis.classes.index)
    counts = dict(zip(diagnosis.classes, diagnosis.class_counts, strict=True))
    table = 100 * np.array([[found[c] for found in changes] for c in chosen])
    labels = [f"{short(c, 34, 2)} ({counts[c]})" for c in chosen]
    figure, axes = new_figure(1.9 + sum(0.34 + 0.16 * label.count("\n") for label in labels))
    figure.set_figwidth(3.4 + 0.72 * len(rows))
    axes.imshow(table, cmap=CHANGES, vmin=-100, vmax=100, aspect="auto")
    for (y, x), value in np.ndenumerate(table):
        axes.text(x, y, _whole(value), ha="center", va="center", fontsize=9, color=ON_LIGHT)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_xticks(range(len(rows)), [row.name for row in rows], rotation=40, ha="right", fontsize=10)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    measure = diagnosis.class_metric
    which = f"the {len(chosen)} of {len(largest)} classes that change most" if len(chosen) < len(largest) else "classes"
    return Drawing(
        name=name,
        title=f"Which classes change: {system}",
        caption=f"Change of what {which} score, in points, mean over seeds, under each intervention that changes "
        "scores; in brackets the class's test clips. Orange: falls; blue: gains.",
        alt="Heat map of changes by class: "
        + "; ".join(f"{row.name}: most {_most(found)}" for row, found in zip(rows, changes, strict=True)),
        figure=figure,
        columns=["class", "n", "intervention", f"{measure}_change"],
        rows=[[c, counts[c], row.name, found[c]] for c in changes[0] for row, found in zip(rows, changes, strict=True)],
        wide=True,
        alone=True,
    )


def _whole(points: float) -> str:
    """Return points without decimals, with their sign."""
    return f"{points:+.0f}".replace("-", "−") if round(points) else "0"


def _most(changes: dict[str, float]) -> str:
    name = next(iter(changes))
    return f"{name} {points(changes[name])}"


def _test(row: DiagnosisRow) -> list[float | None]:
    test = row.against
    return [None, None, None] if test is None else [test.difference, test.low, test.high]


def _by_seed(diagnosis: Diagnosis, row: DiagnosisRow) -> Sequence[tuple[int | None, float | None]]:
    return list(zip(diagnosis.seeds, row.primary, strict=True)) if row.primary else [(None, None)]
