"""The columns of a table: each has a title, the text of a row, and the number behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.comparison.statistics import PairedTest
from ifcar.pipelines.comparison.store import Comparison
from ifcar.pipelines.labels.contract import MEASURES

BOTH_MEASURES = "top-1 or mAP"
NONE = "–"
PROTOCOL, TASK = "protocol", "task"  # titles of the column that says what a row's clips are asked
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table whose rows are made of `T`.

    Args:
        title: its heading.
        text: what a row's cell says.
        number: the unrounded number behind it, by which a table is sorted, or None where a row has none; a column of
            text has no such function.
        decides: whether it holds the measure that decides, in which a table marks the best.
    """

    title: str
    text: Callable[[T], str]
    number: Callable[[T], float | None] | None = None
    decides: bool = False

    def value(self, row: T) -> float | str | None:
        """Return what a file of numbers says of a row: the number, or the text of a column without."""
        return self.text(row) if self.number is None else self.number(row)


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


def second_measures(comparison: Comparison) -> list[str]:
    """Return the keys of the measures that rows have beside those that decide."""
    deciding = {row.metric for row in comparison.rows}
    return [key for key in MEASURES if key not in deciding and any(row.values(key) for row in comparison.rows)]


def has_map(rows: Sequence[ResultRow]) -> bool:
    """Return whether a row's measure is mAP, which few clips overstate."""
    return any(row.metric == "map" for row in rows)


def has_costs(comparison: Comparison) -> bool:
    """Return whether the table shows what its systems take."""
    return any(row.costs for row in comparison.rows)


def columns_of(comparison: Comparison) -> list[Column[ResultRow]]:
    """Return the columns that a comparison's rows fill, in order."""
    title, seconds = title_of(comparison), second_measures(comparison)
    columns: list[Column[ResultRow]] = [Column("system", lambda row: row.system)]
    if len({row.protocol for row in comparison.rows}) > 1:
        columns.append(Column(TASK if any(row.task for row in comparison.rows) else PROTOCOL, lambda row: row.protocol))
    # the answer comes first: a narrow screen shows the first columns
    columns += [replace(_mean(title, lambda row: row.primary), decides=True), of_many(comparison.rows)]
    if comparison.baseline:
        columns += [
            Column(f"Δ to {comparison.baseline}", _difference, _difference_of),
            Column("p (Holm)", lambda row: p_text(row.p_corrected), lambda row: row.p_corrected),
        ]
    columns += [
        Column("n", lambda row: str(row.n), lambda row: row.n),
        Column("runs", lambda row: str(len(row.seeds)), lambda row: len(row.seeds)),
    ]
    columns += [_mean(MEASURES[key], _values(key)) for key in seconds]
    columns.append(_mean(f"train {title}", lambda row: row.train_primary))
    if has_costs(comparison):
        columns += [
            Column("minutes", lambda row: _short(_minutes(row)), _minutes),
            Column("GB", lambda row: _short(_gigabytes(row)), _gigabytes),
        ]
    if any(row.published for row in comparison.rows):
        columns.append(_published(title, lambda row: row.metric))
        columns += [_published(MEASURES[key], _constant(key)) for key in seconds]
    return columns


def block_columns(comparison: Comparison) -> list[Column[ResultRow]]:
    """Return the columns of a table whose rows stand in a block for each protocol, under its name."""
    return [column for column in columns_of(comparison) if column.title not in (PROTOCOL, TASK)]


def blocks_of(comparison: Comparison) -> list[tuple[str, list[ResultRow]]]:
    """Return the rows of each protocol, with its name, in the table's order."""
    protocols = dict.fromkeys(row.protocol for row in comparison.rows)
    return [(name, [row for row in comparison.rows if row.protocol == name]) for name in protocols]


def best_rows(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return the rows with the highest mean of the measure that decides, out of one protocol's; several where equal."""
    means = [_mean_of(row.primary) for row in rows]
    highest = max((mean for mean in means if mean is not None), default=None)
    return [row for row, mean in zip(rows, means, strict=True) if mean is not None and mean == highest]


def of_many(rows: Sequence[ResultRow]) -> Column[ResultRow]:
    """Return the column of the interval, with what endlessly many clips would give where that is not the mean."""
    if not has_map(rows):
        return Column("95 %", interval_of, lambda row: row.interval[0])
    return Column(
        "n → ∞, 95 %", lambda row: f"{percent(row.population)} {interval_of(row)}", lambda row: row.population
    )


def interval_of(row: ResultRow) -> str:
    """Return the interval of a row's measure, in percent."""
    return "[{:.1f}, {:.1f}]".format(*(100 * x for x in row.interval))


def number_columns(comparison: Comparison) -> list[Column[ResultRow]]:
    """Return the columns of a comparison's file of numbers: shares unrounded, each run in columns of its own."""
    name, rows = metric_of(comparison), comparison.rows
    most = max((len(row.seeds) for row in rows), default=0)
    factors = sorted({factor for row in rows for factor in row.factors})
    seconds = second_measures(comparison)
    return [
        Column("system", lambda row: row.system),
        Column("protocol", lambda row: row.protocol),
        Column("head", lambda row: row.head),
        *(_factor(factor) for factor in factors),
        _number("n", lambda row: row.n),
        _number("num_runs", lambda row: len(row.seeds)),
        *_mean_and_deviation(name, lambda row: row.primary),
        _number(f"{name}_population", lambda row: row.population),
        _number(f"{name}_low", lambda row: row.interval[0]),
        _number(f"{name}_high", lambda row: row.interval[1]),
        _number("num_units", lambda row: row.num_units),
        Column("unit", lambda row: row.unit),
        *(column for key in seconds for column in _mean_and_deviation(key, _values(key))),
        _number(f"train_{name}_mean", lambda row: _mean_of(row.train_primary)),
        _of_test("difference", lambda test: test.difference),
        _of_test("difference_low", lambda test: test.low),
        _of_test("difference_high", lambda test: test.high),
        _of_test("p", lambda test: test.p),
        _number("p_holm", lambda row: row.p_corrected),
        *([_number("minutes", _minutes), _number("gigabytes", _gigabytes)] if has_costs(comparison) else ()),
        _number(f"published_{name}_percent", _published_number(lambda row: row.metric)),
        *(_number(f"published_{key}_percent", _published_number(_constant(key))) for key in seconds),
        *(_of_run(f"{name}_run{place}_seed", place, lambda row: row.seeds) for place in range(most)),
        *(_of_run(f"{name}_run{place}", place, lambda row: row.primary) for place in range(most)),
    ]


def _factor(name: str) -> Column[ResultRow]:
    return Column(name, lambda row: "" if row.factors.get(name) is None else str(row.factors[name]))


def _of_test(title: str, number: Callable[[PairedTest], float]) -> Column[ResultRow]:
    return _number(title, lambda row: None if row.against is None else number(row.against))


def _number(title: str, number: Callable[[ResultRow], float | None]) -> Column[ResultRow]:
    return Column(title, lambda row: NONE if number(row) is None else str(number(row)), number)


def _mean_and_deviation(name: str, values: Callable[[ResultRow], Sequence[float]]) -> list[Column[ResultRow]]:
    def deviation(row: ResultRow) -> float | None:
        own = values(row)
        return float(np.std(own, ddof=1)) if len(own) > 1 else None

    return [_number(f"{name}_mean", lambda row: _mean_of(values(row))), _number(f"{name}_std", deviation)]


def _mean_of(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _of_run(title: str, place: int, values: Callable[[ResultRow], Sequence[float]]) -> Column[ResultRow]:
    return _number(title, lambda row: values(row)[place] if place < len(values(row)) else None)


def _mean(title: str, values: Callable[[ResultRow], Sequence[float]]) -> Column[ResultRow]:
    """Return the column of a measure over the replicates, which some rows may not have."""
    return Column(
        title,
        lambda row: mean_and_deviation(values(row)) if values(row) else NONE,
        lambda row: _mean_of(values(row)),
    )


def _published(title: str, key: Callable[[ResultRow], str]) -> Column[ResultRow]:
    return Column(
        f"published {title}",
        lambda row: f"{row.published[key(row)]:.1f}" if key(row) in row.published else NONE,
        _published_number(key),
    )


def _published_number(key: Callable[[ResultRow], str]) -> Callable[[ResultRow], float | None]:
    return lambda row: row.published.get(key(row))


def _constant(key: str) -> Callable[[ResultRow], str]:
    return lambda _: key


def _values(key: str) -> Callable[[ResultRow], Sequence[float]]:
    return lambda row: row.values(key)


def _minutes(row: ResultRow) -> float | None:
    return None if row.costs is None else row.costs.minutes


def _gigabytes(row: ResultRow) -> float | None:
    return None if row.costs is None else row.costs.size_bytes / 1e9


def _short(value: float | None) -> str:
    """Return a quantity with two digits, as 0.0031, 0.27, 4.6 or 120."""
    return NONE if value is None else f"{float(f'{value:.2g}'):.10f}".rstrip("0").rstrip(".")


def _difference(row: ResultRow) -> str:
    test = row.against
    return NONE if test is None else f"{points(test.difference)} {interval(test.low, test.high)}"


def _difference_of(row: ResultRow) -> float | None:
    return None if row.against is None else row.against.difference


def p_text(p: float | None) -> str:
    """Return a p value with three digits."""
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
