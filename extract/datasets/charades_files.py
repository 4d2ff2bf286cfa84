"""Charades' lists of classes and videos, as published (Sigurdsson et al. 2016)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ifcar.cache.schema import Split
from ifcar.errors import InputError
from ifcar.extract.datasets.strict_json import read_json
from ifcar.extract.datasets.text_rows import column_rows, finite_number, word_rows

CLASSES = "Charades_v1_classes.txt"
PARTS = {"Charades_v1_train.csv": Split.TRAIN, "Charades_v1_test.csv": Split.TEST}
RATES = "videoid2fps.json"
_COLUMNS = ("id", "subject", "actions")
_CODE = re.compile(r"c[0-9]{3}")
_MAX_FPS = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedVideo:
    """A row of a list.

    Args:
        split: its part.
        subject: who acts.
        classes: numbers of the classes that it shows; may be empty.
        reversed_actions: how many of its actions end before they begin.
    """

    split: Split
    subject: str
    classes: frozenset[int]
    reversed_actions: int


def read_classes(path: Path) -> dict[str, str]:
    """Return the name of every class by its code, c000 first.

    Raises:
        MissingDataError: no such file.
        InputError: a line is not "c000 Holding some clothes", or the codes are not c000, c001, … each once.
    """
    names: dict[str, str] = {}
    for where, words in word_rows(path, hashlib.sha256(), "lines as 'c000 Holding some clothes'"):
        if len(words) < 2 or not _CODE.fullmatch(words[0]):
            raise InputError(
                f"{where}: {' '.join(words)!r:.80} is not a code and a name, as 'c000 Holding some clothes'"
            )
        if words[0] in names:
            raise InputError(f"{where}: the code {words[0]} is listed twice; expected each once")
        names[words[0]] = " ".join(words[1:])
    expected = [f"c{number:03d}" for number in range(len(names))]
    if not names or sorted(names) != expected:
        last = expected[-1] if expected else "c156"
        raise InputError(f"{path}: {len(names)} classes whose codes are not c000 … {last}, each once")
    return {code: names[code] for code in expected}


def read_videos(root: Path, classes: Mapping[str, str]) -> dict[str, ListedVideo]:
    """Return every listed video by its id, those of the train list first.

    Args:
        root: holds the two lists.
        classes: names by code.

    Raises:
        MissingDataError: a list is not there.
        InputError: a column is missing, or a row is not of that form; an id is listed twice or in both lists.
    """
    number_of = {code: number for number, code in enumerate(classes)}
    videos: dict[str, ListedVideo] = {}
    for name, split in PARTS.items():
        for where, row in column_rows(root / name, hashlib.sha256(), _COLUMNS, "Charades' list of videos"):
            video = row["id"]
            if not video or video in videos:
                also = "the train list too" if video in videos and videos[video].split != split else "the list twice"
                found = f"is in {also}" if video else "is empty"
                raise InputError(f"{where}: id {video!r:.60} {found}; expected each video once")
            videos[video] = _listed_video(where, split, row, number_of)
    return videos


def _listed_video(where: str, split: Split, row: Mapping[str, str], number_of: Mapping[str, int]) -> ListedVideo:
    """Read "c092 11.90 21.20;c147 0.00 12.60" of a row; times only have to be times, as nothing depends on them."""
    found: set[int] = set()
    num_reversed = 0
    for action in filter(None, row["actions"].split(";")):
        words = action.split()
        if len(words) != 3:
            raise InputError(
                f"{where}: action {action!r:.60} is not a class, a start and an end, as 'c092 11.90 21.20'"
            )
        if words[0] not in number_of:
            raise InputError(f"{where}: class {words[0]!r:.40} is not in {CLASSES}")
        start, end = (finite_number(where, f"a time of {words[0]}", word) for word in words[1:])
        if start < 0 or end < 0:
            raise InputError(f"{where}: action {action!r:.60} is at a negative time; expected seconds from 0")
        num_reversed += end < start
        found.add(number_of[words[0]])
    return ListedVideo(split=split, subject=row["subject"], classes=frozenset(found), reversed_actions=num_reversed)


def read_rates(path: Path) -> dict[str, float]:
    """Return the frames per second of the videos that a JSON file {id: number} states; none where there is no file.

    Raises:
        InputError: it is not that.
    """
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected {{id: frames per second}}, found {type(content).__name__}")
    for video, fps in content.items():
        if type(fps) not in (int, float) or not 0 < fps <= _MAX_FPS:
            raise InputError(f"{path}: {video!r:.60}: {fps!r:.40}; expected frames per second, up to {_MAX_FPS:g}")
    return {video: float(fps) for video, fps in content.items()}
