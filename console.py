"""What the command line prints: tables, progress, JSON and the one line of an error.

rich is imported where something is printed with it, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifcar.errors import one_line
from ifcar.terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress

MAX_LINE = 2_000
SHOW_AFTER_SEC = 2.0
PLAIN_EVERY_SEC = 10.0
FOLDED = 10  # characters of a column of text at least; names, which come first, and numbers are never broken


class Screen:
    """Shows a pipeline's progress on stderr: a bar on a terminal or in a notebook, a line every ten seconds elsewhere.

    Args:
        quiet: show nothing, for --json.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.quiet = quiet
        self._bar: Progress | None = None
        self._title, self._total, self._done = "", 0, 0
        self._before = self._after = 0
        self._started = self._spoken = 0.0

    def start(self, title: str, total: int, *, done: int = 0, after: int = 0) -> None:
        """Begin a stage, see `ifcar.pipelines.progress.Progress`."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.finish()
        self._title, self._total, self._done = title, total, done
        self._before, self._after = done, after
        self._started = self._spoken = time.monotonic()
        if not self.quiet and (self.console.is_terminal or self.console.is_jupyter):
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[note]}", markup=False),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._bar.add_task(title, total=total, completed=done, note="", rate="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Finish items of the stage."""
        self._done += count
        now = time.monotonic()
        pace = self._pace(now)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=count, note=printable(note), rate=pace)
        elif not self.quiet and now - self._spoken >= PLAIN_EVERY_SEC:
            line = f"{self._title}: {self._done}/{self._total}, {pace}"
            self.say(f"{line}  {note}" if note else line)
            self._spoken = now

    def _pace(self, now: float) -> str:
        """Return the rate of this stage's own items and the time left, that of what follows included."""
        fresh = self._done - self._before
        rate = fresh / max(now - self._started, 1e-9)
        if not fresh:
            return f"{rate:.1f}/s"
        most = "at most " if self._after else ""
        return f"{rate:.1f}/s, {most}{(self._total - self._done + self._after) / rate:.0f} s left"

    def finish(self) -> None:
        """End the stage; says how long it took when that was over two seconds."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        took = time.monotonic() - self._started
        if self._title and took >= SHOW_AFTER_SEC:
            self.say(f"{self._title}: {self._done}/{self._total} in {took:.1f} s")
        self._title = ""

    def say(self, line: str) -> None:
        """Print one line to stderr."""
        from rich.text import Text

        if not self.quiet:
            self.console.print(Text(printable(line)), soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table to stdout; text from data is never read as markup, and never drives the terminal.

    Args:
        title: above the table.
        columns: their titles.
        rows: values; a float is shown with one decimal, None as a dash.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [[printable(_shown(value)) for value in row] for row in rows]
    whole = [
        place == 0 or all(row[place] is None or isinstance(row[place], int | float) for row in rows)
        for place in range(len(columns))
    ]
    longest = [max(map(cell_len, cells)) for cells in zip(columns, *shown, strict=True)]
    least = [width if kept else min(width, FOLDED) for width, kept in zip(longest, whole, strict=True)]
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.width = max(console.width, sum(least) + 3 * len(least) + 1)
    console.print(Text(printable(title), style="italic"), soft_wrap=True)
    table = Table()
    for column, width, kept in zip(columns, least, whole, strict=True):
        table.add_column(column, overflow="fold", min_width=width, no_wrap=kept)
    for row in shown:
        table.add_row(*map(Text, row))
    console.print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def print_json(content: Any) -> None:
    """Print one JSON value to stdout; a number that is none (NaN, infinite) is null, and so is a key's empty text."""
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def json_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return a table's rows as JSON objects, whose keys are the columns in small letters, "top-1" as "top1"."""
    keys = [re.sub(r"[^a-z0-9]+", "_", column.lower().replace("-", "")).strip("_") for column in columns]
    return [dict(zip(keys, row, strict=True)) for row in rows]


def fail(message: str, code: int = 2) -> int:
    """Print one line to stderr, shortened where it is very long, and return the exit code."""
    line = printable(one_line(message))
    sys.stderr.write("ifcar: " + (line if len(line) <= MAX_LINE else line[:MAX_LINE] + " …") + "\n")
    return code


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): None if isinstance(item, str) and not item else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return _plain(value.tolist()) if hasattr(value, "tolist") else value
