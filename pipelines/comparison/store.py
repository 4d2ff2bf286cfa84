"""A comparison on disk: results.json, from which tables and reports are made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifcar.cache.durable import write_atomic
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.comparison.statistics import PairedTest
from ifcar.pipelines.configs import to_plain
from ifcar.text_files import read_text

NAME = "results.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A table with everything needed to read it.

    Args:
        name: short name; also its folder's.
        title: one line.
        dataset: name of the data.
        baseline: the system that the others are tested against, or "".
        paired_test: "bootstrap" or "mcnemar".
        notes: lines that belong below the table: failed runs, why no published figures, …
        rows: in order.
        cache: path of the cache behind the runs.
        fingerprint: the cache's.
    """

    name: str
    title: str
    dataset: str
    baseline: str
    paired_test: str
    notes: tuple[str, ...]
    rows: tuple[ResultRow, ...]
    cache: str = ""
    fingerprint: str = ""


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write results.json and return its path."""
    path = folder / NAME
    write_atomic(path, (json.dumps(to_plain(comparison), indent=1, ensure_ascii=False) + "\n").encode())
    return path


def read_comparison(folder: Path) -> Comparison:
    """Read results.json. Raises MissingDataError or InputError when it is not there or damaged."""
    path = folder / NAME
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; `ifcar grid` writes it")
    try:
        content = json.loads(read_text(path))
        rows = tuple(_row(row) for row in content["rows"])
        return Comparison(**{**content, "rows": rows, "notes": tuple(content["notes"])})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); run `ifcar grid` again, which keeps finished runs") from error


def _row(content: dict[str, Any]) -> ResultRow:
    lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
    against = content["against"]
    return ResultRow(**{**content, **lists, "against": None if against is None else PairedTest(**against)})
