"""One comparison, ready to be drawn: a protocol, its systems' predictions, and the pair to look at closely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifcar.errors import IfcarError, InputError, nearest
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.comparison.store import Comparison
from ifcar.pipelines.report.systems import SystemScores, read_system
from ifcar.pipelines.runs.data import RunData
from ifcar.pipelines.runs.finished import Run


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What one part of the page is made from.

    Args:
        comparison: the table, with the rows of every protocol.
        protocol: the one that the figures show.
        systems: the systems of that protocol whose runs are at hand and were tested on the same clips, in table order.
        a: the system to look at closely; None when no run is at hand.
        b: what it is compared with; None when there is no second system.
        data: what the runs were trained on; None when no run is at hand.
        notes: what is missing and why, one line each.
    """

    comparison: Comparison
    protocol: str
    systems: Sequence[SystemScores]
    a: SystemScores | None
    b: SystemScores | None
    data: RunData | None
    notes: Sequence[str]

    def rows(self) -> list[ResultRow]:
        """Return the table's rows of the protocol."""
        return [row for row in self.comparison.rows if row.protocol == self.protocol]

    def pair(self) -> list[tuple[str, SystemScores]]:
        """Return ("A", system) and ("B", system), as far as they are there."""
        return [(letter, s) for letter, s in (("A", self.a), ("B", self.b)) if s is not None]

    def caches(self) -> list[Path]:
        """Return where the cache of the runs may be."""
        paths = [Path(self.comparison.cache)] if self.comparison.cache else []
        paths += [run.config.cache for system in self.systems for run in system.runs()]
        return list(dict.fromkeys(paths))

    def fingerprint(self) -> str:
        """Return the fingerprint of the cache that the runs were trained from."""
        return self.comparison.fingerprint or next((s.runs()[0].config.fingerprint for s in self.systems), "")


def open_chapters(
    comparisons: Sequence[Comparison],
    opened: Callable[[Path], Run],
    *,
    compare: str | None,
    baseline: str | None,
    protocol: str | None,
) -> list[Chapter]:
    """Open the runs of each comparison and choose its protocol and pair.

    Args:
        comparisons: see `ifcar.pipelines.report.gather`.
        opened: opens a run's folder.
        compare: system A; default: the best system that is not named as B.
        baseline: system B; default: the comparison's baseline, or the best other system where that is A.
        protocol: default: that of the table's first row.

    Raises:
        InputError: a name is in none of the comparisons; a comparison that does not have it takes its default.
    """
    _check_known("protocol", "--protocol", protocol, [r.protocol for c in comparisons for r in c.rows])
    chapters = [_open(c, opened, compare, baseline, protocol) for c in comparisons if c.rows]
    if not chapters:
        raise InputError("no comparison has a row; run `ifcar grid` again, which keeps finished runs")
    known = [system.name for chapter in chapters for system in chapter.systems]
    _check_known("system", "--compare", compare, known)
    _check_known("system", "--with", baseline, known)
    if compare is not None and compare == baseline:
        raise InputError(f"--compare and --with both name {compare!r}; name two systems")
    return chapters


def _check_known(what: str, option: str, name: str | None, known: Sequence[str]) -> None:
    if name is not None and name not in known:
        listed = ", ".join(repr(k) for k in dict.fromkeys(known)) or "none: no run is at hand"
        raise InputError(f"{option} is {name!r}: no such {what}{nearest(name, known, '.')} There are: {listed}")


def _open(
    comparison: Comparison,
    opened: Callable[[Path], Run],
    compare: str | None,
    baseline: str | None,
    protocol: str | None,
) -> Chapter:
    protocols = [row.protocol for row in comparison.rows]
    chosen = protocol if protocol is not None and protocol in protocols else protocols[0]
    systems: list[SystemScores] = []
    notes: list[str] = []
    data: RunData | None = None
    for row in comparison.rows:
        if row.protocol != chosen:
            continue
        try:
            system = _read_row(row, opened)
            own = system.runs()[0].data()
            _check_same(system, own, systems, data)
        except IfcarError as error:
            notes.append(f"{row.system} is in the table only: {error}")
            continue
        data = data or own
        systems.append(system)
    a, b = _pair(systems, _best_first(comparison, chosen), compare, baseline, comparison.baseline)
    return Chapter(comparison=comparison, protocol=chosen, systems=systems, a=a, b=b, data=data, notes=notes)


def _read_row(row: ResultRow, opened: Callable[[Path], Run]) -> SystemScores:
    return read_system(row.system, row.replicates(opened), row.seeds)


def _check_same(system: SystemScores, own: RunData, others: Sequence[SystemScores], data: RunData | None) -> None:
    """Refuse a system that was not tested on the clips and classes of the first one."""
    classes = (data or own).classes
    for run in system.runs():
        if run.data().classes != classes:
            raise InputError(f"{run.path}: other classes than the first run's")
    if others and not np.array_equal(system.clip_ids, others[0].clip_ids):
        raise InputError(f"tested on other clips than {others[0].name}")


def _best_first(comparison: Comparison, protocol: str) -> list[str]:
    rows = [row for row in comparison.rows if row.protocol == protocol]
    return [row.system for row in sorted(rows, key=lambda row: -float(np.mean(row.primary or [0.0])))]


def _pair(
    systems: Sequence[SystemScores], best_first: Sequence[str], compare: str | None, baseline: str | None, default: str
) -> tuple[SystemScores | None, SystemScores | None]:
    """Return A and B: as named, else the best and the baseline, or the best other where the baseline is A."""
    by_name = {system.name: system for system in systems}
    order = [by_name[name] for name in best_first if name in by_name]
    if len(order) < 2:
        return next(iter(order), None), None
    named = by_name.get(baseline or "")
    a = by_name.get(compare or "") or next(system for system in order if system is not named)
    others = [system for system in (named, by_name.get(default), *order) if system is not None and system is not a]
    return a, others[0]
