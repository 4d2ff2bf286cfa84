"""AVA's annotation files: boxes with actions, the list of evaluated actions, and timestamps that are left out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.key_frames import Corners
from ifcar.extract.datasets.text_rows import csv_rows, finite_number, whole_number
from ifcar.text_files import decode_text

MAX_ACTION = 80
MAX_SECOND = 99_999
_MAX_LIST_BYTES = 1 << 20
_COLUMNS = ("video_id", "middle_frame_timestamp", "x1", "y1", "x2", "y2", "action_id", "person_id")
_DIGITS = 6  # of a corner, as a share of the frame; AVA has three
_ITEM = re.compile(r"(?:item|label)\s*\{(?P<body>[^{}]*)\}")
_NAME = re.compile(r'^\s*name:\s*"(?P<name>[^"]+)"\s*$', re.MULTILINE)
_NUMBER = re.compile(r"^\s*(?:label_)?id:\s*(?P<number>[0-9]{1,9})\s*$", re.MULTILINE)


@dataclass(kw_only=True, slots=True)
class KeyFrames:
    """The boxes of one part of the data.

    Args:
        persons: of each key frame (video, second), the boxes of its persons with their evaluated actions as class
            numbers from 0, in the file's order.
        doubled: rows of evaluated actions that say again what another row says.
    """

    persons: dict[tuple[str, int], dict[Corners, set[int]]] = field(default_factory=dict)
    doubled: int = 0

    def leave_out(self, excluded: set[tuple[str, int]]) -> int:
        """Drop these key frames; return how many boxes they had."""
        return sum(len(self.persons.pop(key)) for key in excluded & self.persons.keys())


def read_action_list(path: Path, digest: hashlib._Hash) -> dict[int, str]:
    """Return the names of the evaluated actions by their number, ascending.

    Args:
        path: `item { name: "…" id: 1 }`, one an action, or the same with `label` and `label_id`.
        digest: takes the file's bytes.

    Raises:
        MissingDataError: no such file.
        InputError: not of that form, or a number that occurs twice.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; expected AVA's list of evaluated actions")
    if path.stat().st_size > _MAX_LIST_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes; a list of actions is read up to {_MAX_LIST_BYTES:,}")
    content = path.read_bytes()
    digest.update(content)
    text = decode_text(content, path)
    actions: dict[int, str] = {}
    for place, item in enumerate(_ITEM.finditer(text), 1):
        names, numbers = _NAME.findall(item["body"]), _NUMBER.findall(item["body"])
        if len(names) != 1 or len(numbers) != 1 or not names[0].isprintable():
            raise InputError(f'{path}: item {place} has no single name and id; expected name: "…" and id: N')
        number = int(numbers[0])
        if not 1 <= number <= MAX_ACTION or number in actions:
            raise InputError(f"{path}: item {place} has the id {number}; expected 1 to {MAX_ACTION}, each once")
        actions[number] = names[0]
    if not actions or _ITEM.sub("", text).strip():
        raise InputError(f'{path}: not a list of actions; expected item {{ name: "…" id: N }}, one an action')
    return dict(sorted(actions.items()))


def read_key_frames(path: Path, class_of: Mapping[int, int], digest: hashlib._Hash, box_notes: BoxNotes) -> KeyFrames:
    """Read the boxes and actions of one part.

    Args:
        path: rows of video_id, middle_frame_timestamp, x1, y1, x2, y2, action_id, person_id, without a header.
        class_of: the class of an evaluated action, by the action's number.
        digest: takes the file's bytes.
        box_notes: counts the rows of boxes without area, which are left out.

    Raises:
        MissingDataError: no such file.
        InputError: a row is not of that form, a corner lies outside the frame, or there is no such action.
    """
    found = KeyFrames()
    for where, row in csv_rows(path, digest, "AVA's boxes and actions"):
        if len(row) != len(_COLUMNS):
            raise InputError(f"{where}: {len(row)} columns; expected {len(_COLUMNS)}: {', '.join(_COLUMNS)}")
        key = _key(where, row)
        corners = _corners(where, row[2:6])
        action = whole_number(where, "action_id", row[6])
        if not 1 <= action <= MAX_ACTION:
            raise InputError(f"{where}: unknown action_id {action}; expected 1 to {MAX_ACTION}")
        if corners[0] >= corners[2] or corners[1] >= corners[3]:
            box_notes.add_flat(f"{where}: {corners}")
            continue
        classes = found.persons.setdefault(key, {}).setdefault(corners, set())
        if action in class_of:
            found.doubled += class_of[action] in classes
            classes.add(class_of[action])
    return found


def read_excluded(path: Path, digest: hashlib._Hash) -> set[tuple[str, int]]:
    """Return the key frames (video, second) that the evaluation leaves out.

    Raises:
        MissingDataError: no such file.
        InputError: a row is not video_id, middle_frame_timestamp.
    """
    excluded = set()
    for where, row in csv_rows(path, digest, "AVA's excluded timestamps; an empty file when there are none"):
        if len(row) != 2:
            raise InputError(f"{where}: {len(row)} columns; expected 2: {', '.join(_COLUMNS[:2])}")
        excluded.add(_key(where, row))
    return excluded


def _key(where: str, row: list[str]) -> tuple[str, int]:
    video = row[0]
    if not video or not video.isprintable() or "/" in video or video.startswith("."):
        raise InputError(f"{where}: video_id is {video!r:.60}; expected the name of a video")
    second = whole_number(where, _COLUMNS[1], row[1])
    if second > MAX_SECOND:
        raise InputError(f"{where}: {_COLUMNS[1]} is {second}; expected seconds, up to {MAX_SECOND}")
    return video, second


def _corners(where: str, texts: list[str]) -> Corners:
    values = []
    for name, text in zip(_COLUMNS[2:6], texts, strict=True):
        value = finite_number(where, name, text)
        if not 0 <= value <= 1:
            raise InputError(
                f"{where}: {name} is {text.strip():.40}; expected 0 to 1, a share of the frame's side "
                "(divide pixels by it)"
            )
        values.append(abs(round(value, _DIGITS)))  # −0.0 is 0.0
    return values[0], values[1], values[2], values[3]
