"""What a table answers, in one sentence: the best system, how sure that is, against what, and on which data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ifcar.pipelines.comparison.columns import (
    best_rows,
    blocks_of,
    has_map,
    interval,
    interval_of,
    mean_and_deviation,
    p_text,
    percent,
    points,
    title_of,
)
from ifcar.pipelines.comparison.formats import runs_text, units
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.comparison.statistics import PairedTest
from ifcar.pipelines.comparison.store import Comparison

LEVEL = 0.05  # of the corrected p, from which on a difference may be chance


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One protocol's answer.

    Args:
        system: the best system.
        text: the rest of the sentence that its name begins.
    """

    system: str
    text: str


def answers_of(comparison: Comparison) -> list[Answer]:
    """Return an answer for each protocol, in the table's order."""
    return [_answer(comparison, protocol, rows) for protocol, rows in blocks_of(comparison)]


def _answer(comparison: Comparison, protocol: str, rows: Sequence[ResultRow]) -> Answer:
    best = (best_rows(rows) or rows)[0]
    where = f"on {comparison.dataset}, {protocol}"
    place = f"is the best of {len(rows)} systems {where}" if len(rows) > 1 else f"is the only system {where}"
    many = f"; for endlessly many such clips {percent(best.population)}" if has_map(comparison.rows) else ""
    runs = f"mean of {runs_text([best])}" if len(best.seeds) > 1 else runs_text([best])
    score = (
        f"{title_of(comparison)} {mean_and_deviation(best.primary)} % ({runs}{many}; 95 % "
        f"interval {interval_of(best)} over {units(comparison)}, n = {best.n:,})"
    )
    against = _against(comparison, best, rows)
    return Answer(system=best.system, text=f"{place}: {score}{f', {against}' if against else ''}.")


def _against(comparison: Comparison, best: ResultRow, rows: Sequence[ResultRow]) -> str:
    """Return how the best stands to the baseline, or the baseline to the next where it is the best itself."""
    if best.against is not None:
        said = f"{_words(best.against)} points to {comparison.baseline}, the baseline"
        return f"{said} ({_chance(best)})"
    if best.system != comparison.baseline:
        return "and no baseline was tested" if len(rows) > 1 else ""
    others = [row for row in rows if row.against is not None and row is not best]
    if not others:
        return ""
    following = best_rows(others)[0]
    assert following.against is not None
    said = f"{following.system}, {_words(following.against)} points"
    return f"the baseline itself; the next is {said} ({_chance(following)})"


def _words(test: PairedTest) -> str:
    return f"{points(test.difference)} {interval(test.low, test.high)}"


def _chance(row: ResultRow) -> str:
    may = "" if row.p_corrected is not None and row.p_corrected < LEVEL else ", which may be chance"
    text = p_text(row.p_corrected)
    return f"p {text if text.startswith('<') else f'= {text}'} after Holm’s correction{may}"
