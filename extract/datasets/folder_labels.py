"""labels.csv of dataset `folder`: a row a clip, its labels and perhaps its part, span and group; and a split drawn."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

import numpy as np

from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.errors import InputError, nearest
from ifcar.extract.datasets.text_rows import column_rows, finite_number

LABELS = "labels.csv"
REQUIRED, OPTIONAL = ("video", "label"), ("split", "start_sec", "end_sec", "group", "fps")
SPLITS = {"train": Split.TRAIN, "test": Split.TEST, "": Split.NONE}
MAX_SECONDS = 1e5
MAX_FPS = 1e4
TEST_SHARE, SEED = 0.25, 0
_NO_NAMES = {"nan", "na", "n/a", "null", "none", "<na>"}
"""What programs write where there is nothing."""
WHAT = "a header and rows of video, label and perhaps split, start_sec, end_sec, group, fps"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRow:
    """A row of labels.csv.

    Args:
        where: the file and line, for messages.
        video: the video's name, in composed Unicode (NFC), with its ending where the row has one.
        labels: names of what the clip shows; none: it has no label.
        split: its part; None where the file has no such column.
        span_sec: seconds of the video that the clip covers; None: all of it. Its end may be infinite.
        group: what must not be divided between parts; "": none stated.
        fps: frames per second of a folder of frames; None: not stated.
    """

    where: str
    video: str
    labels: tuple[str, ...]
    split: Split | None = None
    span_sec: tuple[float, float] | None = None
    group: str = ""
    fps: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFile:
    """All of labels.csv.

    Args:
        rows: by line.
        classes: names of the labels, sorted.
        is_multi: whether some row has several labels.
        has_split: whether the file says which part a row is in.
        unread: columns that are not read.
    """

    rows: Sequence[LabelRow]
    classes: tuple[str, ...]
    is_multi: bool
    has_split: bool
    unread: Sequence[str] = field(default_factory=tuple)


def read_labels(path: Path) -> LabelFile:
    """Read labels.csv.

    Raises:
        MissingDataError: no such file.
        InputError: a column is missing, a row is not of that form, or there are fewer than two labels to tell apart.
    """
    rows: list[LabelRow] = []
    unread: list[str] = []
    columns: list[str] = []
    for where, fields in column_rows(path, hashlib.sha256(), REQUIRED, WHAT, optional=OPTIONAL, unread=unread):
        columns = columns or list(fields)
        rows.append(_row(where, fields))
    mistaken = next((name for name in unread if nearest(name, OPTIONAL) and name.lower() in OPTIONAL), None)
    if mistaken is not None:
        raise InputError(f"{path}: the header names {mistaken!r}; expected {mistaken.lower()!r}, in small letters")
    classes = sorted({label for row in rows for label in row.labels})
    if len(classes) < 2:
        found = f"only {classes[0]!r:.80}" if classes else "none"
        raise InputError(f"{path}: {len(rows)} rows with {found} as label; expected at least two labels to tell apart")
    return LabelFile(
        rows=rows,
        classes=tuple(classes),
        is_multi=any(len(row.labels) > 1 for row in rows),
        has_split="split" in columns,
        unread=unread,
    )


def _row(where: str, fields: Mapping[str, str]) -> LabelRow:
    video = normalize("NFC", fields["video"])
    if not video or "/" in video or "\\" in video:
        raise InputError(f"{where}: video is {fields['video']!r:.80}; expected the name of a file or folder, no path")
    if fields.get("split", "") not in SPLITS:
        raise InputError(
            f"{where}: split is {fields['split']!r:.40}; expected train, test or nothing (a part of train is held out "
            "by ifcar itself)"
        )
    labels = [label.strip() for label in fields["label"].split(";") if label.strip()]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: label names {twice!r:.60} twice; expected each label once")
    fps = finite_number(where, "fps", fields["fps"]) if fields.get("fps") else None
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise InputError(f"{where}: fps is {fps:g}; expected frames per second, up to {MAX_FPS:g}")
    return LabelRow(
        where=where,
        video=video,
        labels=tuple(labels),
        split=SPLITS[fields["split"]] if "split" in fields else None,
        span_sec=_span(where, fields),
        group=fields.get("group", ""),
        fps=fps,
    )


def _span(where: str, fields: Mapping[str, str]) -> tuple[float, float] | None:
    start, stop = fields.get("start_sec", ""), fields.get("end_sec", "")
    if not start and not stop:
        return None
    span = (
        finite_number(where, "start_sec", start) if start else 0.0,
        finite_number(where, "end_sec", stop) if stop else float("inf"),
    )
    return checked_span(where, *span)


def checked_span(where: str, start: float, stop: float) -> tuple[float, float]:
    """Return the seconds of a clip, whose end may be infinite. Raises InputError when they are none."""
    if not 0 <= start < stop or start > MAX_SECONDS or MAX_SECONDS < stop < float("inf"):
        raise InputError(
            f"{where}: the clip is from {start:g} to {stop:g} s; expected 0 ≤ start < end ≤ {MAX_SECONDS:g}"
        )
    return start, stop


def draw_split(labels: Mapping[str, Sequence[str]], groups: Mapping[str, str]) -> dict[str, Split]:
    """Return a part for each clip with labels, by its id: about a quarter for test, in whole groups.

    Groups go to the test part in an order drawn with a fixed seed, first the one whose labels it lacks most. A group
    stays in training where it alone has a label. The same clips always give the same parts, in whatever order.

    Args:
        labels: of each clip that has some, by its id.
        groups: the group of each of these clips, by its id.
    """
    members: dict[str, list[str]] = {}
    for clip_id in sorted(labels):
        members.setdefault(groups[clip_id], []).append(clip_id)
    counts = {name: Counter(label for clip in own for label in labels[clip]) for name, own in members.items()}
    wanted = {label: TEST_SHARE * count for label, count in sum(counts.values(), Counter[str]()).items()}
    holders = Counter(label for own in counts.values() for label in own)
    left = [sorted(members)[place] for place in np.random.default_rng(SEED).permutation(len(members))]
    chosen: list[str] = []
    room = round(TEST_SHARE * len(labels)) or 1
    while True:
        fitting = [n for n in left if len(members[n]) <= room and all(holders[label] > 1 for label in counts[n])]
        if not fitting:
            break
        best = max(
            fitting, key=lambda name: sum(min(wanted[k], n) for k, n in counts[name].items()) / len(members[name])
        )
        chosen.append(best)
        left.remove(best)
        room -= len(members[best])
        for label, count in counts[best].items():
            wanted[label] = max(0.0, wanted[label] - count)
            holders[label] -= 1
    return {clip: Split.TEST if name in chosen else Split.TRAIN for name, own in members.items() for clip in own}


def label_notes(file: LabelFile, num_unlabelled: int) -> list[str]:
    """Return what the labels are taken as."""
    num = len(file.rows)
    kind = (
        f"several labels a clip (some of {num} rows have more than one), {len(file.classes)} classes, measured by mAP"
        if file.is_multi
        else f"one label a clip, {len(file.classes)} classes, measured by top-1"
    )
    lines = [f"{LABELS}: {kind}"]
    if num_unlabelled:
        rows = count_of(num_unlabelled, "has no label", of=f"{num} rows")
        meaning = "shows none of the classes" if file.is_multi else "has no part in training and test"
        lines.append(f"{LABELS}: {rows}: each {meaning}")
    no_names = [name for name in file.classes if name.casefold() in _NO_NAMES]
    if no_names:
        lines.append(f"{LABELS}: {no_names[0]!r} is taken as a class; a clip without a label has an empty field")
    spellings = Counter(name.casefold() for name in file.classes)
    alike = [name for name in file.classes if spellings[name.casefold()] > 1]
    if alike:
        lines.append(f"{LABELS}: classes that differ in capital letters alone: {', '.join(map(repr, alike[:4]))}")
    return lines


def divided_note(split: Mapping[str, Split], groups: Mapping[str, str], kind: str) -> list[str]:
    """Return a line where the file's own split has clips of one group, of this kind, both in training and in test."""
    parts: dict[str, set[Split]] = {}
    for clip_id, part in split.items():
        if part != Split.NONE:
            parts.setdefault(groups[clip_id], set()).add(part)
    divided = [name for name, own in parts.items() if len(own) > 1]
    if not divided:
        return []
    count = count_of(len(divided), "is", of=f"{len(parts)} {kind}s")
    return [
        f"{LABELS}: {count} in training and in test, the first: {divided[0]!r:.80}; what is learned of it there helps "
        "with its test clips"
    ]


def split_note(split: Mapping[str, Split], groups: Mapping[str, str], kind: str) -> str:
    """Return what was drawn for a file without a column split, by groups of this kind."""
    test = [clip_id for clip_id, part in split.items() if part == Split.TEST]
    num_groups, num_test = len({groups[c] for c in split}), len({groups[c] for c in test})
    drawn = (
        f"{len(test)} of {len(split)} clips, {num_test} of {num_groups} {kind}s, are for test, drawn with a fixed seed"
    )
    if not test:
        drawn = f"no {kind} can be spared for test, as each alone has some label"
    return f"{LABELS} has no column split: {drawn}; a column split with train and test says otherwise"
