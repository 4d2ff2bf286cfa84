"""Home Action Genome's lists, classes and atomic actions, as published in either layout (Rai et al. 2021)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifcar.errors import InputError, nearest
from ifcar.extract.datasets.strict_json import read_json
from ifcar.extract.datasets.text_rows import csv_rows, text_rows
from ifcar.text_files import read_text

ANNOTATION_FPS = 30.0
_NAME = re.compile(r"(p[0-9]+_r[0-9]+)(?:_v([0-9]+))?_(a[0-9]+)")
_CLASS = re.compile(r"([0-9]{1,6})(?:\s*,\s*|\s+)(\S.*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A row of a list: where it stands, the recording, and its activity."""

    where: str
    recording: str
    activity: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """An atomic action: its class, and [start, stop) in seconds from the recording's beginning."""

    name: str
    start_sec: float
    stop_sec: float

    def overlaps(self, span_sec: tuple[float, float]) -> bool:
        """Return whether a part of it lies in a span."""
        return self.start_sec < span_sec[1] and self.stop_sec > span_sec[0]


def parse_name(text: str) -> tuple[str, int | None] | None:
    """Return (recording, view) of "p0003_r001_v000_a011", (recording, None) without a view, None for another text."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    return f"{found[1]}_{found[3]}", None if found[2] is None else int(found[2])


def canonical(name: str) -> str:
    """Return a class name with underscores in place of blanks, as the released lists of classes have it."""
    return "_".join(name.replace("_", " ").split())


def read_classes(path: Path, digest: hashlib._Hash) -> list[str]:
    """Return the class names of a file of lines "1 name" or "1,name", in the order of their numbers.

    Raises:
        InputError: a line is not of that form, or the numbers are not 1, 2, … each once, or a name stands twice.
    """
    names: dict[int, str] = {}
    for where, line in text_rows(path, digest, "a number and a class a line"):
        found = _CLASS.fullmatch(line)
        if found is None:
            raise InputError(f"{where}: {line!r:.80} is not a number and a class, as '1 take_off_shoes'")
        number, name = int(found[1]), canonical(found[2])
        if number in names:
            both = f"{names[number]!r:.80} and {name!r:.80}"
            raise InputError(f"{where}: number {number} is listed twice, of {both}; expected each once")
        if name in names.values():
            raise InputError(f"{where}: class {name!r:.80} is listed twice; expected each once")
        names[number] = name
    if not names:
        raise InputError(f"{path}: lists no class; expected lines as '1 take_off_shoes'")
    gap = next((number for number in range(1, max(names) + 1) if number not in names), None)
    if gap is not None or min(names) < 1:
        raise InputError(
            f"{path}: {len(names)} classes, and {f'none has the number {gap}' if gap else 'one has the number 0'}; "
            f"expected numbers from 1 to {len(names)}, each once"
        )
    return [names[number] for number in sorted(names)]


def read_list(path: Path, classes: Sequence[str], digest: hashlib._Hash) -> list[Listed]:
    """Return the rows of a list "p0003_r001_a011,activity" without a header.

    Args:
        path: of the list.
        classes: the activities, one of which each row names, or states the number of from 1; none: not known.
        digest: takes the file's bytes.

    Raises:
        MissingDataError: no such file.
        InputError: a row is not of that form, names no known class, or there is none.
    """
    rows = []
    for where, fields in csv_rows(path, digest, "rows 'p0003_r001_a011,activity'"):
        named = parse_name(fields[0].strip())
        if len(fields) != 2 or named is None or named[1] is not None or not fields[1].strip():
            raise InputError(
                f"{where}: {','.join(fields)!r:.80} is not a recording and its activity, as 'p0003_r001_a011,activity'"
            )
        rows.append(Listed(where=where, recording=named[0], activity=_activity(where, fields[1].strip(), classes)))
    if not rows:
        raise InputError(f"{path}: lists no recording; expected rows 'p0003_r001_a011,activity'")
    return rows


def _activity(where: str, text: str, classes: Sequence[str]) -> str:
    if text.isascii() and text.isdecimal():
        if not 1 <= int(text) <= len(classes):
            expected = f"1 to {len(classes)}, or a name" if classes else "a name where there is no classInd.txt"
            raise InputError(f"{where}: activity {text:.20} is no number of a class; expected {expected}")
        return classes[int(text) - 1]
    name = canonical(text)
    if classes and name not in classes:
        raise InputError(f"{where}: activity {name!r:.80} is not in classInd.txt{nearest(name, classes)}")
    return name


def read_actions(path: Path, classes: Sequence[str], digest: hashlib._Hash) -> list[Action]:
    """Return the atomic actions of a recording; none where the file is empty, as some published ones are.

    Frames count from 1 at 30 a second, and the last one is included, so that frames 1 to 30 are second 0.

    Args:
        path: of the file.
        classes: the atomic actions; none: not known.
        digest: takes the file's content.

    Raises:
        InputError: it is not [{"frame_start", "frame_end", "class", …}, …], or names an unknown class.
    """
    if not read_text(path).strip():
        return []
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected a list of atomic actions")
    digest.update(json.dumps([path.name, content], sort_keys=True).encode())
    return [_action(f"{path} entry {number}", entry, classes) for number, entry in enumerate(content, 1)]


def _action(where: str, entry: Any, classes: Sequence[str]) -> Action:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("class"), str) or not canonical(entry["class"]):
        raise InputError(f"{where}: {entry!r:.80} has no 'class' text; expected frame_start, frame_end and class")
    first, last = entry.get("frame_start"), entry.get("frame_end")
    if type(first) is not int or type(last) is not int or not 1 <= first <= last:
        raise InputError(
            f"{where}: frame_start {first!r:.20} to frame_end {last!r:.20}; expected whole numbers from 1, the first "
            "not behind the last"
        )
    name = canonical(entry["class"])
    if classes and name not in classes:
        raise InputError(f"{where}: class {name!r:.80} is not in classInd_atomic.txt{nearest(name, classes)}")
    return Action(name=name, start_sec=(first - 1) / ANNOTATION_FPS, stop_sec=last / ANNOTATION_FPS)
