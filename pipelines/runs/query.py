"""Which runs `ifcar list runs` shows, and in what order."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ifcar.config_fields import Option
from ifcar.errors import InputError, nearest

if TYPE_CHECKING:
    from ifcar.pipelines.runs.finished import Run  # torch: the command reads these options before it needs it

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "~": operator.contains,
}
"""What compares a cell with a condition's value; "~" asks whether its text has the value within."""
_CONDITION = re.compile(f"(.+?)({'|'.join(COMPARISONS)})(.+)")
SAID_ELSEWHERE = ("head", "protocol", "labels", "seed", "cache", "fingerprint", "protocol_digest", "members")
"""Options that columns of their own show, or that name places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunQuery:
    """What is asked of a listing of runs.

    Args:
        head: runs of this head alone.
        cache: runs of this cache alone, by its path or the end of it.
        protocol: runs of this protocol alone.
        where: each COLUMN>VALUE, or with one of `COMPARISONS`; numbers are compared as numbers, and texts and dates as
            texts. A row without a value there is left out.
        sort: the column to sort by, a number or a text; "-COLUMN" for the largest first; None: oldest first.
    """

    head: Annotated[str | None, Option("With runs: those of this head.")] = None
    cache: Annotated[Path | None, Option("With runs: those of this cache, its path or the end of it.")] = None
    protocol: Annotated[str | None, Option("With runs: those of this protocol.")] = None
    where: Annotated[
        tuple[str, ...],
        Option("With runs: COLUMN>VALUE, as 'top1>60', or with = != ~ < <= >=; again for more.", repeated=True),
    ] = ()
    sort: Annotated[str | None, Option("With runs: the column to sort by; -COLUMN: the largest first.")] = None

    def names(self, run: Run) -> bool:
        """Return whether the run is of the head, cache and protocol that are asked for."""
        config = run.config
        ending = () if self.cache is None else self.cache.parts
        in_cache = not ending or config.cache.parts[-len(ending) :] == ending
        return in_cache and self.head in (None, config.head) and self.protocol in (None, config.protocol)

    def chosen(self, columns: Sequence[str], rows: Sequence[list[Any]]) -> list[list[Any]]:
        """Return the rows that are asked for, in order. Raises InputError naming a bad condition or column."""
        kept = list(rows)
        for text in self.where:
            place, compares, value = _condition(text, columns, rows)
            kept = [row for row in kept if row[place] is not None and compares(_like(value, row[place]), value)]
        if self.sort is None:
            return kept
        place = _column(self.sort.removeprefix("-"), columns, "--sort")
        given = [row for row in kept if row[place] is not None]
        given.sort(key=lambda row: row[place], reverse=self.sort.startswith("-"))
        return given + [row for row in kept if row[place] is None]


def _condition(
    text: str, columns: Sequence[str], rows: Sequence[list[Any]]
) -> tuple[int, Callable[[Any, Any], bool], float | str]:
    """Return the column, the comparison and the value of a condition: a number where the column holds numbers."""
    found = _CONDITION.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f'--where {text!r:.80}: expected COLUMN, one of {" ".join(COMPARISONS)}, and a value, as in "top1>60" or '
            '"head=sfi"'
        )
    name, sign, value = (part.strip() for part in found.groups())
    place = _column(name, columns, "--where")
    of_numbers = any(isinstance(row[place], int | float) for row in rows)
    if not of_numbers or sign == "~":
        return place, COMPARISONS[sign], value
    try:
        return place, COMPARISONS[sign], float(value)
    except ValueError:
        raise InputError(f"--where {text!r:.80}: column {columns[place]!r} holds numbers; expected one") from None


def _like(value: float | str, cell: Any) -> Any:
    """Return a cell as what it is compared with is, a number or a text."""
    return str(cell) if isinstance(value, str) else cell


def _column(name: str, columns: Sequence[str], option: str) -> int:
    """Return the place of a column, named with or without its hyphens and blanks, in any case."""
    plain = [re.sub(r"[^a-z0-9]", "", column.lower()) for column in columns]
    asked = re.sub(r"[^a-z0-9]", "", name.lower())
    if asked not in plain:
        there = f"{nearest(asked, plain, '.')} There are: {', '.join(columns)}"
        raise InputError(f"{option}: no column {name!r:.80}{there}")
    return plain.index(asked)


def differing_options(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each config what it states otherwise than another of its head does, as "lr=0.001, dropout=0.1"."""
    flat = [_flat({k: v for k, v in config.items() if k not in SAID_ELSEWHERE}) for config in configs]
    said = []
    for config, own in zip(configs, flat, strict=True):
        same = [other for one, other in zip(configs, flat, strict=True) if one["head"] == config["head"]]
        # Of a part that others leave out, such as how a backbone was fine-tuned, only what differs is spelled out.
        part_of = {key: key.partition(".")[0] for key in own}
        left_out = sorted({part for key, part in part_of.items() if key != part and any(part in o for o in same)})
        told = []
        for key, value in own.items():
            others = [other for other in same if part_of[key] not in left_out or part_of[key] not in other]
            if any(other.get(key) != value for other in others):
                told.append(f"{key}={value}")
        said.append(", ".join([*told, *(f"{part}=…" for part in left_out)]))
    return said


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{above}{key}.")
        else:
            out[f"{above}{key}"] = value
    return out
