"""Action Genome (Ji et al. 2020): boxes of persons and objects in annotated frames of Charades videos.

object_bbox_and_relationship.pkl   {"ID.mp4/000089.png": [{"class", "bbox": (x, y, w, h) or None, "visible", …}, …]}
person_bbox.pkl                    {"ID.mp4/000089.png": {"bbox": (n, 4) x1, y1, x2, y2, "bbox_size": (w, h), …}}

The data set's own script writes its frames with ffmpeg: every frame of the 480p video at the video's own rate, from
000001.png. Frame k of a name is therefore the video's k-th frame, not the k-th of Charades' frames at 24 a second.
Person boxes are those of the published detector, n ≥ 0 a frame; an object has at most one box of its class a frame, and
none where it is not visible. Boxes are in pixels of frames of `bbox_size`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ifcar.errors import InputError
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.limits import MAX_COORDINATE, MAX_FRAME_NUMBER
from ifcar.extract.safe_pickle import load_pickle
from ifcar.extract.tracks import Detection, Tracks, link

OBJECTS, PERSONS = "object_bbox_and_relationship.pkl", "person_bbox.pkl"
_PERSON = "person"
_FRAME_NAME = re.compile(r"(?P<video>[^/]+)\.mp4/(?P<frame>[0-9]{1,12})\.(?:png|jpg)", re.DOTALL)
_MAX_SIDE = 1 << 16

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedVideo:
    """One video's boxes.

    Args:
        video: its id.
        tracks: one a class, and for persons as many as there are at once; frame numbers from 0.
        frame_size: (width, height) of the frames that the boxes are in; None where no frame states it.
    """

    video: str
    tracks: Tracks
    frame_size: Size | None


def read_action_genome(folder: Path, digest: hashlib._Hash, box_notes: BoxNotes) -> Iterator[AnnotatedVideo]:
    """Yield the annotated videos in the order of their ids.

    Args:
        folder: holds the two pickles.
        digest: takes what the files hold; complete when the iterator has ended.
        box_notes: looks at the boxes, and counts those without area, which are left out.

    Raises:
        MissingDataError: a pickle is not there.
        InputError: a pickle is damaged, asks for anything else than plain data, or is not of that form.
    """
    detections: dict[str, dict[int, list[Detection]]] = {}
    sizes: dict[str, Size] = {}
    for where, video, frame, record in _frames(folder / PERSONS, digest):
        size = _frame_size(where, record)
        if size is not None and sizes.setdefault(video, size) != size:
            raise InputError(f"{where}: frames of {size}, others of {sizes[video]}; expected one size in a video")
        detections.setdefault(video, {})[frame] = _persons(where, record, box_notes)
    for where, video, frame, records in _frames(folder / OBJECTS, digest):
        detections.setdefault(video, {}).setdefault(frame, []).extend(_objects(where, records, box_notes))
    for video in sorted(detections):
        by_frame = detections.pop(video)
        frames = sorted(by_frame)
        tracks = link(np.array(frames, np.int64), [by_frame[frame] for frame in frames])
        kinds = (detection.key for found in by_frame.values() for detection in found)
        box_notes.add_clip(f"{video!r} of {folder}", tracks.boxes, tracks.categories, kinds)
        yield AnnotatedVideo(video=video, tracks=tracks, frame_size=sizes.get(video))


def _frames(path: Path, digest: hashlib._Hash) -> Iterator[tuple[str, str, int, object]]:
    """Yield ("FILE: frame NAME", video, frame number from 0, value) of every frame of a pickle."""
    content = load_pickle(path)
    with path.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected {{'ID.mp4/000001.png': …}}")
    seen: set[tuple[str, int]] = set()
    for name in list(content):
        value = content.pop(name)  # what has been read is let go
        match = _FRAME_NAME.fullmatch(name) if isinstance(name, str) else None
        number = int(match["frame"]) if match is not None else 0
        if match is None or not 1 <= number <= MAX_FRAME_NUMBER:
            raise InputError(f"{path}: frame name {name!r:.100} is not 'ID.mp4/000001.png' or later")
        if (match["video"], number) in seen:
            raise InputError(f"{path}: two names are of frame {number} of {match['video']!r:.60}; expected one")
        seen.add((match["video"], number))
        yield f"{path}: frame {name!r:.100}", match["video"], number - 1, value


def _frame_size(where: str, record: object) -> Size | None:
    """Return the (width, height) that a person record states. Raises InputError when it is no such record."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: a {type(record).__name__}; expected a mapping with bbox and bbox_size")
    size = record.get("bbox_size")
    if size is None:
        return None
    sides = list(size) if isinstance(size, tuple | list) else []
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in sides):
        raise InputError(f"{where}: bbox_size is {size!r:.60}; expected (width, height), 1 to {_MAX_SIDE} pixels")
    return sides[0], sides[1]


def _persons(where: str, record: object, box_notes: BoxNotes) -> list[Detection]:
    """Return the persons of a frame."""
    assert isinstance(record, dict)
    boxes, mode = record.get("bbox"), record.get("bbox_mode", "xyxy")
    if mode != "xyxy":
        raise InputError(f"{where}: bbox_mode is {mode!r:.40}; expected 'xyxy'")
    if boxes is None or (isinstance(boxes, np.ndarray) and not boxes.size):
        return []
    if not isinstance(boxes, np.ndarray) or boxes.dtype.kind not in "fiu" or boxes.ndim != 2 or boxes.shape[1] != 4:
        found = f"{boxes.dtype} {boxes.shape}" if isinstance(boxes, np.ndarray) else type(boxes).__name__
        raise InputError(f"{where}: bbox is {found}; expected an array (persons, 4) of x1, y1, x2, y2")
    corners = [_finite(where, _PERSON, row) for row in boxes.tolist()]
    return _with_area(where, [Detection(key=_PERSON, is_subject=True, box=box) for box in corners], box_notes)


def _objects(where: str, records: object, box_notes: BoxNotes) -> list[Detection]:
    """Return the objects of a frame that have a box."""
    if not isinstance(records, list):
        raise InputError(f"{where}: a {type(records).__name__}; expected a list of objects")
    found: list[Detection] = []
    for record in records:
        name = record.get("class") if isinstance(record, dict) else None
        if not isinstance(name, str):
            raise InputError(f"{where}: an object without a text 'class'")
        box = _object_box(where, name, record)
        if box is not None:
            found.append(Detection(key=name, is_subject=False, box=box))
    return _with_area(where, found, box_notes)


def _object_box(where: str, name: str, record: Mapping[str, object]) -> tuple[float, float, float, float] | None:
    box, visible = record.get("bbox"), record.get("visible", True)
    if not isinstance(visible, bool | np.bool_):
        raise InputError(f"{where}: visible of {name!r:.40} is {visible!r:.40}; expected True or False")
    if box is None or not visible:
        return None
    values = box.tolist() if isinstance(box, np.ndarray) else box
    x, y, width, height = _finite(where, name, values)
    return x, y, x + width, y + height


def _finite(where: str, name: str, values: object) -> tuple[float, float, float, float]:
    """Return four finite numbers."""
    numbers = values if isinstance(values, tuple | list) else ()
    is_number = [isinstance(v, int | float | np.integer | np.floating) and not isinstance(v, bool) for v in numbers]
    # A comparison with NaN is False.
    if is_number != [True] * 4 or not all(-MAX_COORDINATE <= v <= MAX_COORDINATE for v in numbers):
        raise InputError(f"{where}: box of {name!r:.40} is {values!r:.100}; expected four finite numbers of pixels")
    return float(numbers[0]), float(numbers[1]), float(numbers[2]), float(numbers[3])


def _with_area(where: str, detections: Sequence[Detection], box_notes: BoxNotes) -> list[Detection]:
    kept = [d for d in detections if d.box[2] > d.box[0] and d.box[3] > d.box[1]]
    for detection in detections if len(kept) < len(detections) else ():
        if detection not in kept:
            box_notes.add_flat(f"{detection.key!r}: {detection.box} in {where}")
    return kept
