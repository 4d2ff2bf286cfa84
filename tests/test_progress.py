"""What a stage's progress says of its pace and its time left."""

from __future__ import annotations

import re
import time

import pytest

from ifcar.console import Screen


def test_rate_counts_new_items_alone_and_the_time_left_what_follows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    screen = Screen()
    for after, left in ((0, r"10 s left"), (300, r"at most 40 s left")):
        screen.start("s fit", 1000, done=800, after=after)
        clock += 10.0
        screen.advance(100)
        assert re.search(rf"s fit: 900/1000, 10\.0/s, {left}$", capsys.readouterr().err.strip())
