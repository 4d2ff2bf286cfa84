"""How a pipeline tells what it is doing, without knowing about terminals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one command; cli.py shows it."""

    def start(self, title: str, total: int, *, done: int = 0, after: int = 0) -> None:
        """Begin a stage of `total` items.

        Args:
            title: of the stage.
            total: its items.
            done: how many an earlier command finished, which no rate counts.
            after: items of the same kind that follow it at most, which the time left counts.
        """

    def advance(self, count: int = 1, note: str = "") -> None:
        """Finish `count` items of the stage; `note` replaces the stage's remark."""

    def finish(self) -> None:
        """End the stage."""

    def say(self, line: str) -> None:
        """Tell the user one fact."""


class Silent:
    """A `Progress` that shows nothing."""

    def start(self, title: str, total: int, *, done: int = 0, after: int = 0) -> None:
        """Ignore the stage."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Ignore the items."""

    def finish(self) -> None:
        """Ignore the end."""

    def say(self, line: str) -> None:
        """Ignore the fact."""


def counter(progress: Progress, title: str) -> Callable[[int, int], None]:
    """Return a (done, total) callback that reports to `progress` as one stage."""
    done_before = 0

    def report(done: int, total: int) -> None:
        nonlocal done_before
        if done_before == 0:
            progress.start(title, total)
        progress.advance(done - done_before)
        done_before = done
        if done == total:
            progress.finish()

    return report
