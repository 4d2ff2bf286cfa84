"""What the report says first: the best system, how sure that is, against what, and on which data."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fixtures.tables import row, table

from ifcar.pipelines.comparison.columns import best_rows
from ifcar.pipelines.comparison.formats import caption
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.report.answer import answers_of


def sentences(rows: Sequence[ResultRow], baseline: str = "plain") -> list[str]:
    return [f"{answer.system} {answer.text}" for answer in answers_of(table(rows, baseline))]


def test_the_answer_names_the_best_its_interval_the_baseline_and_the_data() -> None:
    rows = [row("plain", [0.5]), row("good", [0.7, 0.8], 0.001), row("fair", [0.6], 0.2)]
    assert sentences(rows) == [
        "good is the best of 3 systems on toybox, compositional: top-1 75.0 ± 7.1 % (mean of 2 runs; 95 % interval "
        "[70.0, 80.0] over clips, n = 200), +25.0 [+15.0, +35.0] points to plain, the baseline (p = 0.001 after Holm’s "
        "correction)."
    ]


@pytest.mark.parametrize(
    ("rows", "baseline", "said"),
    [
        ([row("plain", [0.5]), row("good", [0.51], 0.4)], "plain", "p = 0.400 after Holm’s correction, which may be"),
        ([row("plain", [0.5]), row("low", [0.3], 0.1), row("next", [0.4], 0.01)], "plain", "the next is next, −10.0 ["),
        ([row("a", [0.5]), row("b", [0.4])], "", "and no baseline was tested"),
        ([row("a", [0.5])], "", "a is the only system on toybox, compositional: top-1 50.0 % (1 run; 95 %"),
    ],
)
def test_the_answer_hides_no_chance_and_no_missing_baseline(
    rows: Sequence[ResultRow], baseline: str, said: str
) -> None:
    assert said in sentences(rows, baseline)[0]


def test_each_protocol_has_its_own_answer_and_best() -> None:
    rows = [row("a", [0.5]), row("b", [0.6]), row("a", [0.4], protocol="other"), row("b", [0.3], protocol="other")]
    assert [answer.system for answer in answers_of(table(rows, ""))] == ["b", "a"]
    equal = [row("a", [0.6]), row("b", [0.6]), row("c", [0.1])]
    assert [own.system for own in best_rows(equal)] == ["a", "b"] and best_rows([]) == []


def test_one_run_is_no_mean() -> None:
    assert "Test accuracy in percent on toybox: 1 run; in brackets" in caption(table([row("a", [0.5])]))
    assert "over 1 or 2 runs (seeds" in caption(table([row("a", [0.5]), row("b", [0.5, 0.6])]))
