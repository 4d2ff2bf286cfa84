"""Annotation records in Something-Else's form, a frame each: {"name": "ID/0001.jpg", "labels": [label, …]}.

A label is {"box2d": {"x1", "y1", "x2", "y2"}, "standard_category"}, corners in pixels; it may state its "track", a
whole number from 0, and whether it is a "subject", which hands and persons are where it does not. Frame numbers count
from 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.json_stream import stream_entries
from ifcar.extract.limits import MAX_COORDINATE, MAX_FRAME_NUMBER
from ifcar.extract.subjects import SUBJECTS
from ifcar.extract.tracks import Detection, Tracks, link, numbered

FRAME_NAME = re.compile(r"(?P<clip>.+)/(?P<frame>[0-9]{1,12})\.[A-Za-z]+", re.DOTALL)


def stream_records(path: Path, digest: hashlib._Hash) -> Iterator[tuple[str, Any]]:
    """Yield (clip id, records) of an annotation file one clip at a time, see `stream_entries`."""
    return stream_entries(path, digest, "{clip id: [record, …]}")


LabelValues = Callable[[str, Mapping[str, Any]], Mapping[str, NDArray[Any]]]
"""(the label's place, for messages, and the label) → what it has beside its box, see `Detection`."""


def read_tracks(
    path: Path,
    clip_id: str,
    records: Any,
    box_notes: BoxNotes | None = None,
    *,
    values_of: LabelValues | None = None,
    empty: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> Tracks:
    """Turn one clip's annotation records into tracks: those that the labels state, or else linked ones.

    Args:
        path: the file, for messages.
        clip_id: the clip.
        records: list of {"name": "ID/0001.jpg", "labels": [{"box2d", "standard_category"}, …]}; a label may state its
            "track", a whole number from 0, and whether it is a "subject".
        box_notes: looks at the boxes, and counts those without area.
        values_of: reads what labels have beside their boxes; they state their tracks then.
        empty: see `numbered`.

    Raises:
        InputError: a record is not of that form, or two records name the same frame.
    """
    if not isinstance(records, list):
        raise InputError(f"{path}: clip {clip_id!r}: expected a list of records, found {type(records).__name__}")
    box_notes = BoxNotes() if box_notes is None else box_notes
    by_frame: dict[int, list[Detection]] = {}
    for record in records:
        frame = _frame_number(path, clip_id, record)
        name = record["name"]
        if frame in by_frame:
            raise InputError(f"{path}: clip {clip_id!r}: two records name the frame {name!r}")
        labels = record.get("labels") or []
        if not isinstance(labels, list):
            raise InputError(f"{path}: {name}: labels are a {type(labels).__name__}; expected a list")
        by_frame[frame] = []
        for label in labels:
            detection = _detection(path, name, label)
            if values_of is not None:
                detection = replace(detection, values=values_of(f"{path}: {name}", label))
            if detection.box[2] > detection.box[0] and detection.box[3] > detection.box[1]:
                by_frame[frame].append(detection)
            else:
                box_notes.add_flat(f"{detection.key!r} in {name}: {detection.box}")
    frames = np.array(sorted(by_frame), np.int64)
    found = [by_frame[int(f)] for f in frames]
    is_numbered = _check_numbers(path, clip_id, by_frame, required=values_of is not None)
    tracks = numbered(frames, found, empty) if is_numbered else link(frames, found)
    kinds = (detection.key for found in by_frame.values() for detection in found)
    box_notes.add_clip(f"{clip_id!r} of {path}", tracks.boxes, tracks.categories, kinds)
    return tracks


def _check_numbers(path: Path, clip_id: str, by_frame: Mapping[int, Sequence[Detection]], *, required: bool) -> bool:
    """Return whether labels state their tracks. Raises InputError where some do not, or two are one at once."""
    stated = [detection.track is not None for found in by_frame.values() for detection in found]
    if not any(stated) and not required:
        return False
    for frame, found in by_frame.items():
        numbers = [detection.track for detection in found]
        where = f"{path}: clip {clip_id!r}, frame {frame + 1}"
        if None in numbers:
            raise InputError(f"{where}: a label states no track, as others do; expected a number in each, or in none")
        if len(set(numbers)) < len(numbers):
            raise InputError(f"{where}: two boxes are of one track; expected each track once in a frame")
    return True


def _frame_number(path: Path, clip_id: str, record: Any) -> int:
    """Return the frame number from 0 that a record's name states."""
    name = record.get("name") if isinstance(record, dict) else None
    match = FRAME_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or match["clip"] != clip_id or not 1 <= int(match["frame"]) <= MAX_FRAME_NUMBER:
        raise InputError(f"{path}: clip {clip_id!r}: record name {name!r:.200} is not '{clip_id}/0001.jpg' or later")
    return int(match["frame"]) - 1


def _detection(path: Path, frame_name: str, label: Any) -> Detection:
    key = label.get("standard_category") if isinstance(label, dict) else None
    box = label.get("box2d") if isinstance(label, dict) else None
    if not isinstance(key, str) or not isinstance(box, dict):
        raise InputError(f"{path}: {frame_name}: a label lacks standard_category or box2d (a text, a mapping)")
    x1, y1, x2, y2 = (box.get(k) for k in ("x1", "y1", "x2", "y2"))
    corners = [v for v in (x1, y1, x2, y2) if isinstance(v, int | float) and not isinstance(v, bool)]
    # A comparison with NaN is False.
    if len(corners) < 4 or not all(-MAX_COORDINATE <= v <= MAX_COORDINATE for v in corners):
        found = f"{(x1, y1, x2, y2)!r:.120}"
        raise InputError(
            f"{path}: {frame_name}: box of {key!r} is not finite numbers x1, y1, x2, y2 in pixels: {found}"
        )
    track, subject = label.get("track"), label.get("subject", key in SUBJECTS)
    if track is not None and (type(track) is not int or not 0 <= track <= MAX_FRAME_NUMBER):
        raise InputError(f"{path}: {frame_name}: track of {key!r} is {track!r:.60}; expected a whole number from 0")
    if not isinstance(subject, bool):
        raise InputError(f"{path}: {frame_name}: subject of {key!r} is {subject!r:.60}; expected true or false")
    box_of_label = (corners[0], corners[1], corners[2], corners[3])
    return Detection(key=key, is_subject=subject, box=box_of_label, track=track)
