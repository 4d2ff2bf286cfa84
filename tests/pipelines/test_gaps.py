"""What a run's gaps are said to mean."""

from __future__ import annotations

import pytest

from ifcar.pipelines.scoring.gaps import NO_GAP, NOT_LEARNED, OTHER_CLIPS, OVERFITTED, describe_gaps
from ifcar.pipelines.scoring.scores import Metrics


def part(split: str, top1: float | None, n: int) -> Metrics:
    return Metrics(split=split, n=n, top1=top1, loss=1.0, seconds=0.0, seed=0)


@pytest.mark.parametrize(
    ("train", "held_out", "test", "n", "said"),
    [
        (0.59, 0.2, 0.1, 200, NOT_LEARNED),
        (0.95, 0.70, 0.65, 200, OVERFITTED),
        (0.95, 0.90, 0.60, 200, OTHER_CLIPS),
        (0.95, 0.90, 0.85, 200, NO_GAP),
        (0.95, None, 0.60, 200, OVERFITTED),
        (0.95, 0.90, 0.789, 200, OTHER_CLIPS),  # 11.1 points, two standard errors are 7.2
        (0.95, 0.90, 0.789, 50, NO_GAP),  # of fewer clips the same gap means nothing: 14.3
        (0.95, 0.90, 0.801, 200, NO_GAP),  # 9.9 points
    ],
)
def test_the_first_rule_that_holds_is_said(
    train: float, held_out: float | None, test: float, n: int, said: str
) -> None:
    parts = [part("train", train, n), part("test", test, n)]
    parts += [] if held_out is None else [part("held_out", held_out, n)]
    line = describe_gaps(parts)
    shown = f"train {100 * train:.1f}, " + ("" if held_out is None else f"held-out {100 * held_out:.1f}, ")
    assert line == f"gap: {shown}test {100 * test:.1f}; {said}"


def test_nothing_is_said_where_a_part_has_no_measure() -> None:
    assert describe_gaps([part("train", 0.9, 9), part("test", None, 9)]) == describe_gaps([]) == ""
