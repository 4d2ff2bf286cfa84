"""The result file of one part of `benchmarks/gpu.py`: whole on disk after every row, within its time box."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from machine import facts

Content = dict[str, Any]


class Rows:
    """What a part found, row by row.

    A row that raises holds its traceback, and the next one begins; a row that is expected to take longer than what is
    left of the box is not begun, and says so.

    Args:
        path: the file.
        part: whose it is.
        device: where the part runs.
        small: whether sizes show only that everything runs.
        ends: when the box is over, on `time.monotonic`'s clock.
    """

    def __init__(self, path: Path, part: str, device: str, *, small: bool, ends: float) -> None:
        self.path, self.device, self.small, self.ends = path, device, small, ends
        self._started = time.monotonic()
        self._content: Content = {"part": part, "small": small, "box_seconds": round(self.left(), 1), **facts(device)}
        self._content |= {"ended": "at no row's end", "rows": []}
        self._write()

    @property
    def found(self) -> list[Content]:
        """The rows so far."""
        rows: list[Content] = self._content["rows"]
        return rows

    def left(self) -> float:
        """Return the seconds that are left of the box."""
        return self.ends - time.monotonic()

    def measure(self, name: str, side: Callable[[], Mapping[str, Any]], *, expected: float = 0) -> Mapping[str, Any]:
        """Run one row's measurement, keep what it returns, and return that: {} where there is nothing.

        Args:
            name: what is measured.
            side: returns numbers by name; "ok": False says that a check failed.
            expected: seconds that it is expected to take.
        """
        if expected > self.left():
            self._add({"row": name, "not_begun": f"{self.left():.0f} s left of the box, {expected:.0f} s expected"})
            return {}
        started = time.monotonic()
        try:
            found = side()
        except Exception as error:  # whatever it is: it belongs to this row, and the rows behind it are worth as much
            self.fail(name, error)
            return {}
        self._add({"row": name, **found, "row_seconds": round(time.monotonic() - started, 2)})
        return found

    def fail(self, name: str, error: Exception) -> None:
        """Keep what was raised, and give back the memory that it held."""
        trace = [line for text in traceback.format_exception(error) for line in text.splitlines()]
        error.__traceback__ = None
        self._add({"row": name, "failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]}, trace[-40:])
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def end(self) -> bool:
        """Note that the part is through, and return whether all that it began went well."""
        self._content["ended"] = "through"
        self._write()
        return not any("failed" in row or row.get("ok") is False for row in self.found)

    def _add(self, row: Content, trace: list[str] | None = None) -> None:
        self.found.append(
            {**row, **({"traceback": trace} if trace else {}), "at": round(time.monotonic() - self._started, 1)}
        )
        self._content["ended"] = f"after the row {row['row']!r}"
        self._write()
        print(f"{self._content['part']} {self._content['rows'][-1]['at']:5.0f} s  {one_line(row)}", flush=True)

    def _write(self) -> None:
        building = self.path.with_suffix(".part")
        building.write_text(json.dumps(self._content, indent=1) + "\n")
        building.replace(self.path)


def one_line(row: Mapping[str, Any]) -> str:
    """Return a row's name and its single numbers as text."""
    parts = [str(row["row"])]
    for name, value in row.items():
        if name.endswith(("row", "limit", "row_seconds")):
            continue
        if isinstance(value, float):
            parts.append(f"{name} {value:.4g}")
        elif isinstance(value, int | str):
            parts.append(f"{name} {value}")
    return ", ".join(parts)[:400]


def ended(path: Path, part: str, how: str) -> Content:
    """Return a part's content, with how it was ended from outside where it did not end by itself."""
    content: Content = json.loads(path.read_text()) if path.exists() else {"part": part, "ended": "", "rows": []}
    if content["ended"] != "through":
        content["ended"] = f"{how} {content['ended']}".strip()
        path.write_text(json.dumps(content, indent=1) + "\n")
    return content
