"""The columns of a table: each has a title, the text of a row, and the number behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.comparison.store import Comparison
from ifcar.pipelines.labels.kinds import MEASURES

BOTH_MEASURES = "top-1 or mAP"
NONE = "–"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table whose rows are made of `T`.

    Args:
        title: its heading.
        text: what a row's cell says.
        number: the unrounded number behind it, by which a table is sorted, or None where a row has none; a column of
            text has no such function.
    """

    title: str
    text: Callable[[T], str]
    number: Callable[[T], float | None] | None = None


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return NONE if share is None else f"{100 * share:.1f}"


def points(share: float) -> str:
    """Return a difference of shares in points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """Return the interval of a difference of shares, in points."""
    return f"[{points(low)}, {points(high)}]"


def mean_and_deviation(values: Sequence[float]) -> str:
    """Return "mean ± sample standard deviation" in percent; the mean alone for one value."""
    values_in_percent = 100 * np.asarray(values)
    deviation = f" ± {values_in_percent.std(ddof=1):.1f}" if len(values_in_percent) > 1 else ""
    return f"{values_in_percent.mean():.1f}{deviation}"


def metric_of(comparison: Comparison) -> str:
    """Return the key of the measure that decides in every row; "primary" where protocols of both label kinds meet."""
    metrics = {row.metric for row in comparison.rows}
    return metrics.pop() if len(metrics) == 1 else "primary"


def title_of(comparison: Comparison) -> str:
    """Return what the table calls the measure that decides."""
    return MEASURES.get(metric_of(comparison), BOTH_MEASURES)


def has_map(comparison: Comparison) -> bool:
    """Return whether a row's measure is mAP, which few clips overstate."""
    return any(row.metric == "map" for row in comparison.rows)


def columns_of(comparison: Comparison) -> list[Column[ResultRow]]:
    """Return the columns that a comparison's rows fill, in order."""
    title, ranked = title_of(comparison), any(row.top5 for row in comparison.rows)
    columns: list[Column[ResultRow]] = [Column("system", lambda row: row.system)]
    if len({row.protocol for row in comparison.rows}) > 1:
        columns.append(Column("protocol", lambda row: row.protocol))
    columns += [
        Column("n", lambda row: str(row.n), lambda row: row.n),
        Column("runs", lambda row: str(len(row.seeds)), lambda row: len(row.seeds)),
        _mean(title, lambda row: row.primary),
        _of_many(comparison),
    ]
    if ranked:
        columns.append(_mean("top-5", lambda row: row.top5))
    columns.append(_mean(f"train {title}", lambda row: row.train_primary))
    if comparison.baseline:
        columns += [
            Column(f"Δ to {comparison.baseline}", _difference, _difference_of),
            Column("p (Holm)", _p, lambda row: row.p_corrected),
        ]
    if any(row.published for row in comparison.rows):
        columns.append(_published(title, lambda row: row.metric))
        if ranked:
            columns.append(_published("top-5", lambda _: "top5"))
    return columns


def _of_many(comparison: Comparison) -> Column[ResultRow]:
    """Return the column of the interval, with what endlessly many clips would give where that is not the mean."""
    if not has_map(comparison):
        return Column("95 %", _interval, lambda row: row.interval[0])
    return Column("n → ∞, 95 %", lambda row: f"{percent(row.population)} {_interval(row)}", lambda row: row.population)


def _interval(row: ResultRow) -> str:
    return "[{:.1f}, {:.1f}]".format(*(100 * x for x in row.interval))


def _mean(title: str, values: Callable[[ResultRow], Sequence[float]]) -> Column[ResultRow]:
    """Return the column of a measure over the replicates, which some rows may not have."""
    return Column(
        title,
        lambda row: mean_and_deviation(values(row)) if values(row) else NONE,
        lambda row: float(np.mean(values(row))) if values(row) else None,
    )


def _published(title: str, key: Callable[[ResultRow], str]) -> Column[ResultRow]:
    return Column(
        f"published {title}",
        lambda row: f"{row.published[key(row)]:.1f}" if key(row) in row.published else NONE,
        lambda row: row.published.get(key(row)),
    )


def _difference(row: ResultRow) -> str:
    test = row.against
    return NONE if test is None else f"{points(test.difference)} {interval(test.low, test.high)}"


def _difference_of(row: ResultRow) -> float | None:
    return None if row.against is None else row.against.difference


def _p(row: ResultRow) -> str:
    p = row.p_corrected
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
