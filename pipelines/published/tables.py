"""The papers' figures, with where they stand and what they are of; `tables.yaml` is the one place that holds them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifcar.errors import InputError, nearest, nearest_of
from ifcar.pipelines.configs import from_plain, read_yaml
from ifcar.pipelines.labels.contract import MEASURES
from ifcar.pipelines.runs.facts import ANNOTATED, Fact

if TYPE_CHECKING:
    from ifcar.pipelines.runs.data import RunData

FILE = Path(__file__).with_name("tables.yaml")
BETWEEN = ":"  # a table's name and a row's, where a row is named


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedOn:
    """The data behind published figures; they are printed only beside results on the same.

    Args:
        dataset: registered name.
        classes: number of classes, by protocol.
        train: number of training clips, by protocol, where it is known.
        test: number of test clips, by protocol, where it is known.
        mean_over: protocols of which each figure is the mean.
    """

    dataset: str
    classes: Mapping[str, int] = field(default_factory=dict)
    train: Mapping[str, int] = field(default_factory=dict)
    test: Mapping[str, int] = field(default_factory=dict)
    mean_over: tuple[str, ...] = ()

    def mismatch(self, dataset: str, protocol: str, num_classes: int, num_train: int, num_test: int) -> str:
        """Return in what other data differ, on one line; empty where they are the same as far as the paper says."""
        if dataset != self.dataset:
            return f"data is {dataset}, the paper's {self.dataset}"
        if protocol in self.mean_over:
            return f"the paper's figures are means over {' and '.join(self.mean_over)}"
        if protocol not in self.classes:
            return f"protocol {protocol} is not the paper's"
        found = {"classes": num_classes, "train": num_train, "test": num_test}
        for what, name in (("classes", "classes"), ("train", "training clips"), ("test", "test clips")):
            stated = getattr(self, what).get(protocol, found[what])
            if found[what] != stated:
                return f"{found[what]:,} {name}, the paper's {stated:,}"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """Who published it."""

    title: str
    authors: str
    year: int

    def cited(self) -> str:
        """Return authors and year."""
        return f"{self.authors} {self.year}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One row of a table.

    Args:
        name: as the paper calls it.
        figures: in percent by their keys in `MEASURES`, as KEY@PROTOCOL of one protocol, KEY@STREAM/SPACE of one task.
        system: the line of the table's grid that reproduces it; None: the line of its name; "": none does.
        facts: what is stated of this row beside the table's.
        note: what else belongs to it.
    """

    name: str
    figures: Mapping[str, float]
    system: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        check_figures(f"row {self.name!r}", self.figures)

    @property
    def line(self) -> str:
        """The grid's line that reproduces it, or an empty text."""
        return self.name if self.system is None else self.system


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """A table of a paper.

    Args:
        name: short, for the command line.
        paper: key of the paper.
        table: what the paper calls it.
        what: its subject and data.
        grid: the shipped grid that reproduces it, or an empty text.
        data: what clips and classes.
        boxes: where boxes come from, in words.
        protocol: how figures were made, in words.
        facts: what the paper states, by the names of a cache's identity and a run's config.
        traps: what makes figures differ without a fault, one line each.
        rows: in the paper's order.
    """

    name: str
    paper: str
    table: str
    what: str
    grid: str = ""
    data: PublishedOn
    boxes: str
    protocol: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    traps: tuple[str, ...] = ()
    rows: tuple[PublishedRow, ...]

    def figures(self, line: str) -> Mapping[str, float]:
        """Return the figures of a grid's line; none where the paper has no such row."""
        return {key: value for row in self.rows if row.line == line for key, value in row.figures.items()}

    def stated(self, row: PublishedRow) -> list[Fact]:
        """Return what the paper states of a row."""
        facts = {"dataset.name": self.data.dataset, **self.facts, **row.facts}
        return [Fact(name=name, value=value) for name, value in facts.items()]

    def mismatch(self, of_run: RunData) -> str:
        """Return why a run's figures are not to stand beside the table's: other clips, classes or boxes."""
        identity = dict(of_run.identity)
        dataset, num_classes = str(identity.get("dataset", {}).get("name", "unknown")), len(of_run.classes)
        found = self.data.mismatch(dataset, of_run.protocol, num_classes, of_run.num_train, of_run.num_test)
        return found or self.other_boxes(identity)

    def other_boxes(self, identity: Mapping[str, Any]) -> str:
        """Return that a cache has boxes of a file where the paper's are annotated; else an empty text."""
        given = "boxes" in identity and self.facts.get("boxes") == ANNOTATED
        return "boxes are those of a file, the paper's are annotated" if given else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """All papers and tables."""

    papers: Mapping[str, Any]
    tables: tuple[PublishedTable, ...]

    def paper(self, table: PublishedTable) -> Paper:
        """Return a table's paper."""
        return from_plain(Paper, self.papers[table.paper], f"{FILE}: {table.paper}")


def check_figures(where: str, figures: Mapping[str, float]) -> None:
    """Refuse keys of a published figure that no table has."""
    for key in figures:
        measure, at, protocol = key.partition("@")
        if measure not in MEASURES or bool(at) != bool(protocol) or " " in protocol:
            raise InputError(
                f"{where}: unknown key {key!r} in published; expected {', '.join(MEASURES)}, or KEY@PROTOCOL for one "
                "protocol"
            )


@functools.cache
def published() -> Published:
    """Return the papers' figures."""
    return from_plain(Published, read_yaml(FILE), str(FILE))


def published_table(name: str) -> PublishedTable:
    """Return a table by its name. Raises InputError naming the nearest one where there is none."""
    tables = {table.name: table for table in published().tables}
    if name not in tables:
        raise InputError(f"no published table {name!r}{nearest(name, tables, '.')} `ifcar list published` shows them")
    return tables[name]


def published_row(name: str) -> tuple[PublishedTable, PublishedRow]:
    """Return the row that TABLE:ROW names. Raises InputError naming the nearest one where there is none."""
    table_name, _, row_name = name.partition(BETWEEN)
    table = published_table(table_name)
    rows = {row.name: row for row in table.rows} | {row.line: row for row in table.rows if row.line}
    if row_name not in rows:
        raise InputError(f"published table {table_name} has no row {row_name!r}{nearest_of(row_name, rows)}")
    return table, rows[row_name]


def table_of_grid(grid: str) -> PublishedTable | None:
    """Return the table that a shipped grid reproduces, None where it is of no paper's table."""
    return next((table for table in published().tables if table.grid == grid), None)
