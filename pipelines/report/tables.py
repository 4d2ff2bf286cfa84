"""The tables of a page: text to read, and the numbers to sort it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifcar.pipelines.comparison.formats import BOTH_MEASURES, caption, cells, title_of
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.comparison.store import Comparison
from ifcar.pipelines.labels.kinds import MEASURES
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.pair_figures import ClassGain

MOST_ERRORS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell: what it says, and the number that sorts it; None sorts by the text, or last in a column of numbers."""

    text: str
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a page.

    Args:
        name: for its id.
        caption: what it shows.
        columns: headings.
        numeric: which columns are numbers.
        rows: the first cell is the row's heading.
    """

    name: str
    caption: str
    columns: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[Cell]]


def results_table(comparison: Comparison) -> Table:
    """Return the comparison's table, as in its table.md, sorted by unrounded numbers."""
    header, rows = cells(comparison)
    texts = ("system", "protocol")
    return Table(
        name="results",
        caption=caption(comparison),
        columns=header,
        numeric=[name not in texts for name in header],
        rows=[
            [Cell(text=text, value=_value(name, row)) for name, text in zip(header, texts_of_row, strict=True)]
            for row, texts_of_row in zip(comparison.rows, rows, strict=True)
        ],
    )


def _value(column: str, row: ResultRow) -> float | None:
    """Return the number behind a cell of `cells`."""
    values: dict[str, float | None] = {
        "n": row.n,
        "runs": len(row.seeds),
        "95 %": row.interval[0],
        "top-5": float(np.mean(row.top5)) if row.top5 else None,
        "p (Holm)": row.p_corrected,
        "published top-5": row.published.get("top5"),
    }
    for title in (MEASURES[row.metric], BOTH_MEASURES):
        values |= {title: float(np.mean(row.primary)), f"train {title}": float(np.mean(row.train_primary))}
        values[f"published {title}"] = row.published.get(row.metric)
    if column.startswith("Δ to "):
        return None if row.against is None else row.against.difference
    return values.get(column)


def gains_table(gains: Sequence[ClassGain], measure: str) -> Table:
    """Return the gains of all classes in a measure, "Top-1" or "Average precision"."""
    rows = [
        [
            Cell(text=g.name),
            Cell(text=str(g.n), value=g.n),
            Cell(text=f"{100 * g.a:.1f}", value=g.a),
            Cell(text=f"{100 * g.b:.1f}", value=g.b),
            Cell(text=signed(g.difference), value=g.difference),
            Cell(text=f"[{signed(g.low)}, {signed(g.high)}]", value=g.low),
        ]
        for g in gains
    ]
    return Table(
        name="gains",
        caption=f"{measure} of A and B on each of {len(gains)} classes, in percent, and their difference in points "
        "with its 95 % interval over the class's clips",
        columns=["class", "clips", "A", "B", "A − B", "95 %"],
        numeric=[False, True, True, True, True, True],
        rows=rows,
    )


def errors_table(counts: Sequence[NDArray[np.int64]], classes: Sequence[str]) -> Table:
    """Return the most frequent errors of A and B together."""
    total = np.sum(counts, axis=0)
    wrong = [(i, j) for i, j in zip(*np.nonzero(total), strict=True) if i != j]
    wrong = sorted(wrong, key=lambda pair: (-int(total[pair]), pair))
    letters = ["A", "B"][: len(counts)]
    rows = []
    for pair in wrong[:MOST_ERRORS]:
        own = [int(c[pair]) for c in counts]
        cells_ = [Cell(text=classes[pair[0]]), Cell(text=classes[pair[1]])]
        rows.append(cells_ + [Cell(text=str(m), value=m) for m in own])
    which = f"The {MOST_ERRORS} most frequent" if len(wrong) > MOST_ERRORS else "All"
    return Table(
        name="errors",
        caption=f"{which} of {len(wrong)} kinds of error: clips of a class that are taken for another",
        columns=["class", "taken for", *(f"clips, {letter}" for letter in letters)],
        numeric=[False, False, *(True for _ in letters)],
        rows=rows,
    )


def runs_table(chapter: Chapter) -> Table:
    """Return every run behind the figures, with what makes it findable."""
    rows = []
    title = title_of(chapter.comparison)
    for system in chapter.systems:
        for run in system.runs():
            test = run.metric("test")
            share = None if test is None else test.primary
            rows.append(
                [
                    Cell(text=str(run.path)),
                    Cell(text=system.name),
                    Cell(text=str(run.metrics[0].seed), value=run.metrics[0].seed),
                    Cell(text="–" if share is None else f"{100 * share:.1f}", value=share),
                ]
            )
    return Table(
        name="runs",
        caption=f"Runs behind the figures, test {title} in percent",
        columns=["run", "system", "seed", title],
        numeric=[False, False, True, True],
        rows=rows,
    )


def signed(share: float) -> str:
    """Return a difference of shares in points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")
