"""Reproduction cards: what the papers publish, what runs here reached, and why a figure has none beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifcar.counts import count_of
from ifcar.data_files import subfolders
from ifcar.errors import IfcarError
from ifcar.pipelines.comparison.columns import interval_of, mean_and_deviation
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.comparison.store import NAME as RESULTS
from ifcar.pipelines.comparison.store import Comparison, read_comparison
from ifcar.pipelines.folders import folder
from ifcar.pipelines.labels.contract import MEASURES
from ifcar.pipelines.published.tables import BETWEEN, PublishedRow, PublishedTable, published
from ifcar.pipelines.runs.differences import differences
from ifcar.pipelines.runs.facts import Facts, run_facts
from ifcar.pipelines.runs.finished import open_run

NOT_RUN = "not run"
COLUMNS = ("row", "published", "ours", "line of the grid", "note", "settings that differ")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One row of a table of a paper.

    Args:
        table: the paper's table.
        row: its row.
        protocol: of the figures, or their task, where the row names one; else "".
        published: the figures as text.
        ours: mean, interval and seeds where its grid ran on the same data, else why there is none.
        settings: in what the runs differ from what the paper states, one line; empty where in nothing.
    """

    table: PublishedTable
    row: PublishedRow
    protocol: str
    published: str
    ours: str
    settings: str = ""

    @property
    def name(self) -> str:
        """What `ifcar compare` takes, TABLE:ROW."""
        return f"{self.table.name}{BETWEEN}{self.row.name}"

    @property
    def source(self) -> str:
        """The paper and its table."""
        return f"{published().paper(self.table).cited()}, {self.table.table}"

    def columns(self) -> list[str | None]:
        """Return what a list of the table's rows says of this one, see `COLUMNS`."""
        row = f"{self.row.name}, {self.protocol}" if self.protocol else self.row.name
        line = self.row.line if self.table.grid else ""
        return [row, self.published, self.ours, line or None, self.row.note or None, self.settings or None]


def comparisons_here() -> list[Comparison]:
    """Return the comparisons in the runs folder, those that cannot be read left out."""
    found = []
    for path in subfolders(folder("runs")):
        if (path / RESULTS).is_file():
            try:
                found.append(read_comparison(path))
            except IfcarError:
                continue
    return found


def cards(comparisons: Sequence[Comparison]) -> list[Card]:
    """Return a card for every published row and protocol, table by table."""
    return [card for table in published().tables for card in table_cards(table, comparisons)]


def table_cards(table: PublishedTable, comparisons: Sequence[Comparison]) -> list[Card]:
    """Return the cards of a table; of comparisons those count that reproduce it."""
    own = [c for c in comparisons if table.name == c.published_table or (table.grid and table.grid == c.name)]
    return [_card(table, row, protocol, own) for row in table.rows for protocol in _protocols(row)]


def _protocols(row: PublishedRow) -> list[str]:
    """Return the protocols, or tasks, that a row's figures name, "" where they name none."""
    return list(dict.fromkeys(key.partition("@")[2] for key in row.figures))


def _card(table: PublishedTable, row: PublishedRow, protocol: str, comparisons: Sequence[Comparison]) -> Card:
    suffix = f"@{protocol}" if protocol else ""
    figures = {key: row.figures[key + suffix] for key in MEASURES if key + suffix in row.figures}
    said = ", ".join(f"{MEASURES[key]} {value}" for key, value in figures.items())
    ours, settings = NOT_RUN if table.grid and row.line else "no grid", ""
    for comparison in comparisons:
        for result in comparison.rows:
            if result.system == row.line and protocol in ("", result.protocol, result.task, result.stage):
                ours, settings = _ours(table, row, result, next(iter(figures)))
    return Card(table=table, row=row, protocol=protocol, published=said, ours=ours, settings=settings)


def _ours(table: PublishedTable, row: PublishedRow, result: ResultRow, measure: str) -> tuple[str, str]:
    """Return a system's score with its interval, or why it cannot stand beside the paper's, and differing settings."""
    try:
        run = open_run(Path(result.runs[0]))
        reason = table.mismatch(run.data())
        stated = Facts(facts=table.stated(row), partial=True)
        found = differences(run_facts(run), stated)
    except (IfcarError, IndexError) as error:
        return f"its runs are not at hand: {error}", ""
    if not reason and len({*result.seeds}) < len(result.seeds):
        reason = "several draws of the shots, the paper has one"
    if not reason and len(result.runs) > len(result.seeds):
        reason = "test clips of several protocols together"
    if reason:
        return f"other data: {reason}", ""
    if not result.values(measure):
        return f"another measure: {MEASURES[result.metric]}", ""
    interval = f" {interval_of(result)}" if measure == result.metric else ""
    seeds = count_of(len(result.seeds), "seed")
    score = f"{MEASURES[measure]} {mean_and_deviation(result.values(measure))}{interval}, {seeds}"
    return score, "; ".join(f"{d.fact.name} {d.a}, the paper's {d.b}" for d in found)
