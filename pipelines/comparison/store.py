"""A comparison on disk: results.json, from which tables and reports are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ifcar.cache.durable import write_atomic
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.comparison.results import Costs, ResultRow
from ifcar.pipelines.comparison.statistics import PairedTest
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.runs.places import located, located_cache
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
        published_table: name of the papers' table that it reproduces, or "".
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
    published_table: str = ""


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write results.json, with every place named from the root, and return its path."""
    path = folder / NAME
    comparison = _with_places(comparison, lambda place: str(Path(place).absolute()))
    write_atomic(path, (json.dumps(to_plain(comparison), indent=1, ensure_ascii=False) + "\n").encode())
    return path


def read_comparison(folder: Path) -> Comparison:
    """Read results.json; cache and runs are looked for beside it too, see `ifcar.pipelines.runs.places`.

    Raises:
        MissingDataError, InputError: it is not there, or damaged.
    """
    path = folder / NAME
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; `ifcar grid` writes it")
    try:
        content = json.loads(read_text(path))
        _check_version(content["rows"], path)
        rows = tuple(_row(row) for row in content["rows"])
        comparison = Comparison(**{**content, "rows": rows, "notes": tuple(content["notes"])})
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); run `ifcar grid` again, which keeps finished runs") from error
    cache = str(located_cache(Path(comparison.cache), folder, comparison.fingerprint)) if comparison.cache else ""
    return replace(_with_places(comparison, lambda place: str(located(Path(place), folder))), cache=cache)


def _with_places(comparison: Comparison, place: Callable[[str], str]) -> Comparison:
    """Return a comparison whose cache and runs are at `place(path)`."""
    rows = tuple(replace(row, runs=tuple(map(place, row.runs))) for row in comparison.rows)
    return replace(comparison, rows=rows, cache=place(comparison.cache) if comparison.cache else "")


def _check_version(rows: list[dict[str, Any]], path: Path) -> None:
    """Refuse intervals of mAP that meant something else: they were around the mAP of the clips at hand."""
    if any(row["metric"] == "map" and "population" not in row for row in rows):
        raise InputError(
            f"{path}: an earlier version made it, whose intervals of mAP are too high for endlessly many clips; run "
            "`ifcar grid` again, which keeps finished runs"
        )


def _row(content: dict[str, Any]) -> ResultRow:
    lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
    against, costs = content["against"], content.get("costs")
    content.setdefault("population", sum(content["primary"]) / len(content["primary"]))
    return ResultRow(
        **{**content, **lists, "against": against and PairedTest(**against), "costs": costs and Costs(**costs)}
    )
