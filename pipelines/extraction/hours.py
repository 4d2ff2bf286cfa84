"""How long extraction took: a line each time that it ran, in a file beside the cache, whose bytes stay the same."""

from __future__ import annotations

import json
from pathlib import Path

from ifcar.text_files import read_text


def hours_file(cache: Path) -> Path:
    """Return the file beside a cache that says how long its rows took."""
    return cache.with_name(f"{cache.name}.hours.jsonl")


def note_hours(cache: Path, *, rows: int, seconds: float, device: str) -> None:
    """Append how many rows were computed, in how many seconds and where; silent where that cannot be written."""
    line = json.dumps({"rows": rows, "hours": round(seconds / 3600, 6), "device": device})
    try:
        with hours_file(cache).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError:  # the cache is finished whether or not its time is known
        return


def hours_a_row(cache: Path) -> float | None:
    """Return the mean hours of a row over all lines; None where nothing is known, or what stands there is damaged."""
    path = hours_file(cache)
    if not path.is_file():
        return None
    try:
        lines = [json.loads(line) for line in read_text(path).splitlines()]
        rows, hours = (sum(float(line[key]) for line in lines) for key in ("rows", "hours"))
    except (KeyError, TypeError, ValueError):
        return None
    return hours / rows if rows > 0 else None
