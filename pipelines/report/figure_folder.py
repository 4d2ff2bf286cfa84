"""Where a report's figures go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ifcar.cache.durable import write_atomic
from ifcar.pipelines.report.drawing import Drawing, save_drawing
from ifcar.pipelines.report.page import ShownFigure


@dataclass(frozen=True, kw_only=True)
class FigureFolder:
    """Where figures go.

    Args:
        path: the folder.
        prefix: of every file's name, when a report has several chapters.
        written: filled with (figure's title, its files, rows of its numbers).
        undrawn: filled with the characters that no installed font has.
    """

    path: Path
    prefix: str
    written: list[tuple[str, Sequence[Path], int]]
    undrawn: set[str]

    def save(self, drawing: Drawing) -> ShownFigure:
        """Write a figure's files and return it for the page."""
        named = replace(drawing, name=self.prefix + drawing.name)
        files, svg, undrawn = save_drawing(named, self.path)
        self.undrawn.update(undrawn)
        self.written.append((named.title, files, len(named.rows)))
        return ShownFigure(drawing=named, svg=svg)

    def save_numbers(self, name: str, title: str, text: str, num_rows: int) -> None:
        """Write numbers that no figure draws as NAME.csv."""
        path = self.path / f"{self.prefix}{name}.csv"
        write_atomic(path, text.encode())
        self.written.append((title, [path], num_rows))
