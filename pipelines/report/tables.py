"""The tables of a page: text to read, and the numbers to sort it by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.pipelines.comparison.columns import (
    NONE,
    Column,
    best_rows,
    block_columns,
    blocks_of,
    interval,
    percent,
    points,
    title_of,
)
from ifcar.pipelines.comparison.formats import caption, csv_text
from ifcar.pipelines.comparison.store import Comparison
from ifcar.pipelines.diagnosis.store import Diagnosis
from ifcar.pipelines.diagnosis.table import caption as diagnosis_caption
from ifcar.pipelines.diagnosis.table import columns_of as diagnosis_columns
from ifcar.pipelines.published.cards import COLUMNS, Card
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.pair_figures import ClassGain
from ifcar.pipelines.runs.finished import Run

MOST_ERRORS = 30


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a page.

    Args:
        name: for its id.
        caption: what it shows.
        columns: the first one's cells are the rows' headings.
        rows: what the columns are asked about.
        block: names the block in which a row stands, under a heading; None: the table has one block, without a name.
        best: rows whose deciding cell is marked.
        whole: whether all rows stand on the page, without scrolling inside the table.
    """

    name: str
    caption: str
    columns: Sequence[Column[Any]]
    rows: Sequence[Any]
    block: Callable[[Any], str] | None = None
    best: Sequence[Any] = ()
    whole: bool = False

    def blocks(self) -> list[tuple[str, list[Any]]]:
        """Return each block's name, or empty text, and its rows, in the table's order."""
        found: dict[str, list[Any]] = {}
        for row in self.rows:
            found.setdefault(self.block(row) if self.block else "", []).append(row)
        return list(found.items()) or [("", [])]

    def numbers(self) -> str:
        """Return the table as CSV, unrounded."""
        rows = [[column.value(row) for column in self.columns] for row in self.rows]
        return csv_text([column.title for column in self.columns], rows)

    def marks(self, row: Any, column: Column[Any]) -> bool:
        """Return whether a cell is the best of its block."""
        return column.decides and any(row is own for own in self.best)


def results_table(comparison: Comparison) -> Table:
    """Return the comparison's table, as in its table.md, a block for each protocol, sorted by unrounded numbers."""
    blocks = blocks_of(comparison)
    return Table(
        name="results",
        caption=caption(comparison),
        columns=block_columns(comparison),
        rows=comparison.rows,
        block=(lambda row: str(row.protocol)) if len(blocks) > 1 else None,
        best=[row for _, rows in blocks if len(rows) > 1 for row in best_rows(rows)],
        whole=True,
    )


def cards_table(cards: Sequence[Card]) -> Table:
    """Return what a paper publishes, row by row, beside what runs of the comparison reached on the same data."""

    def column(place: int) -> Column[Card]:
        return Column(COLUMNS[place], lambda card: card.columns()[place] or NONE)

    columns = [column(place) for place in range(len(COLUMNS))]
    text = (
        f"{cards[0].source}, in percent, and ours: mean ± sample standard deviation over seeds and the 95 % interval. "
        "Where data differ there is no figure of ours, but why"
    )
    return Table(name="published", caption=text, columns=columns, rows=cards)


def gains_table(gains: Sequence[ClassGain], measure: str) -> Table:
    """Return the gains of all classes in a measure, "Top-1" or "Average precision"."""
    columns: list[Column[ClassGain]] = [
        Column("class", lambda gain: gain.name),
        Column("clips", lambda gain: str(gain.n), lambda gain: gain.n),
        Column("A", lambda gain: percent(gain.a), lambda gain: gain.a),
        Column("B", lambda gain: percent(gain.b), lambda gain: gain.b),
        Column("A − B", lambda gain: points(gain.difference), lambda gain: gain.difference),
        Column("95 %", lambda gain: interval(gain.low, gain.high), lambda gain: gain.low),
    ]
    text = (
        f"{measure} of A and B on each of {len(gains)} classes, in percent, and their difference in points with its "
        "95 % interval over the class's clips"
    )
    return Table(name="gains", caption=text, columns=columns, rows=gains)


def diagnosis_table(system: str, diagnosis: Diagnosis, name: str) -> Table:
    """Return what each intervention makes of a system, as `ifcar diagnose` prints it."""
    return Table(
        name=name,
        caption=f"{system}. {diagnosis_caption(diagnosis)}",
        columns=diagnosis_columns(diagnosis),
        rows=diagnosis.rows,
    )


def errors_table(counts: Sequence[NDArray[np.int64]], classes: Sequence[str]) -> Table:
    """Return the most frequent errors of A and B together; a row is a pair of classes."""
    total = np.sum(counts, axis=0)
    wrong = [(i, j) for i, j in zip(*np.nonzero(total), strict=True) if i != j]
    wrong = sorted(wrong, key=lambda pair: (-int(total[pair]), pair))
    columns: list[Column[tuple[int, int]]] = [
        Column("class", lambda pair: classes[pair[0]]),
        Column("taken for", lambda pair: classes[pair[1]]),
        *(_count(f"clips, {letter}", own) for letter, own in zip("AB", counts, strict=False)),
    ]
    which = f"The {MOST_ERRORS} most frequent" if len(wrong) > MOST_ERRORS else "All"
    text = f"{which} of {len(wrong)} kinds of error: clips of a class that are taken for another"
    return Table(name="errors", caption=text, columns=columns, rows=wrong[:MOST_ERRORS])


def _count(title: str, counts: NDArray[np.int64]) -> Column[tuple[int, int]]:
    return Column(title, lambda pair: str(counts[pair]), lambda pair: int(counts[pair]))


def runs_table(chapter: Chapter) -> Table:
    """Return every run behind the figures, with what makes it findable; a row is a system's name and a run."""
    title = title_of(chapter.comparison)
    columns: list[Column[tuple[str, Run]]] = [
        Column("run", lambda row: str(row[1].path)),
        Column("system", lambda row: row[0]),
        Column("seed", lambda row: str(row[1].metrics[0].seed), lambda row: row[1].metrics[0].seed),
        Column(title, lambda row: percent(_test_share(row[1])), lambda row: _test_share(row[1])),
    ]
    rows = [(system.name, run) for system in chapter.systems for run in system.runs()]
    text = f"Runs behind the figures, test {title} in percent"
    return Table(name="runs", caption=text, columns=columns, rows=rows)


def _test_share(run: Run) -> float | None:
    test = run.metric("test")
    return None if test is None else test.primary
