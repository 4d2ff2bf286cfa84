"""Boxes of a file in place of those of a dataset: proposals, any number a frame and without classes, or detections.

    NAME.json    {clip id: [record, …], …}: detections, tracks with classes, see `ifcar.extract.datasets.detected_boxes`
    NAME.json    {clip id: {frame number: [[x1, y1, x2, y2], …], …}, …}, or [x1, y1, x2, y2, score]
    NAME.npz     clip (B,) text, frame (B,) whole numbers, box (B, 4), and perhaps score (B,); as np.savez writes them

Proposals are pixels of the source's frames; of ava's without pixels, whose frames are 1 × 1, shares of their sides.
Frame numbers count from 1, as in the names of frames, at the dataset's annotation rate. They have no tracks: the k-th
box of a frame sits in slot k, by falling score, or in the file's order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import ArraySpec
from ifcar.cache.npz import NpzError, read_arrays
from ifcar.cache.schema import Category
from ifcar.data_files import absence
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.detected_boxes import BoxFileFacts, read_detected, read_facts
from ifcar.extract.datasets.json_stream import stream_entries
from ifcar.extract.limits import MAX_COORDINATE, MAX_FRAME_NUMBER
from ifcar.extract.track_store import TrackStore
from ifcar.extract.tracks import Tracks

_MAX_SCORE = 1e30
_FRAME = re.compile(r"[0-9]{1,12}")
_JSON = "{clip id: {frame number: [[x1, y1, x2, y2], …]}}"
_ARRAYS = "clip (B,) text, frame (B,) whole numbers, box (B, 4) and perhaps score (B,)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposals:
    """The boxes of a file, for the clips of a dataset.

    Args:
        store: the boxes of the clips that the file has.
        digest: SHA-256 of the file.
        filled: share of the slots that hold a box, over the frames that the file lists for these clips.
        notes: one line for everything about the file that is incomplete.
        facts: how they were detected, where a file beside it says so; what the boxes carry follows from it.
    """

    store: TrackStore
    digest: str
    filled: float
    notes: Sequence[str]
    facts: BoxFileFacts | None = None

    @property
    def carried(self) -> tuple[ArraySpec, ...]:
        """Return the arrays that the tracks carry beside boxes."""
        return () if self.facts is None else self.facts.arrays()

    def boxes(self, clip_id: str) -> Tracks:
        """Return a clip's boxes; none where the file lacks it."""
        return self.store.get(clip_id) if clip_id in self.store else Tracks.none()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """A clip's boxes in the file's order: frame (B,) from 0, box (B, 4), score (B,) or None."""

    frame: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float64] | None


def read_proposals(path: Path, clip_ids: Sequence[str], num_slots: int, *, shares: bool = False) -> Proposals:
    """Read the boxes of these clips, at most as many a frame as there are slots.

    Args:
        path: see above; its ending says which. JSON is read clip by clip, NPZ at once.
        clip_ids: the clips.
        num_slots: N.
        shares: whether the frames of the clips are 1 × 1, so that boxes are shares of their sides.

    Raises:
        MissingDataError: no such file.
        InputError: it is not of that form, has a box that is none, or has none of the clips.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: {absence(path)}; expected boxes as JSON or NPZ")
    if path.suffix.lower() not in (".json", ".npz"):
        raise InputError(f"{path}: expected boxes in a file that ends in .json or .npz")
    reading = _Reading(path, clip_ids, num_slots, BoxNotes(shares=shares))
    is_json = path.suffix.lower() == ".json"
    if is_json and _holds_records(path):
        facts = read_facts(path)
        for clip_id, tracks in read_detected(path, facts, reading.digest, reading.wanted, reading.box_notes):
            if reading.takes(clip_id) and tracks is not None:
                reading.add(clip_id, tracks, np.isfinite(tracks.boxes[..., 0]).sum(axis=1))
        return reading.done(facts, have_classes=True)
    for clip_id, rows in (_read_json if is_json else _read_npz)(path, reading.digest):
        if reading.takes(clip_id):
            tracks, counts = _slots(path, clip_id, rows, num_slots, reading.box_notes)
            reading.box_notes.add_clip(f"{clip_id!r} of {path}", tracks.boxes, tracks.categories)
            reading.add(clip_id, tracks, counts)
    return reading.done(None, have_classes=False)


def _holds_records(path: Path) -> bool:
    """Return whether the first clip of a file has a list of records, and not boxes by frame."""
    _, first = next(stream_entries(path, hashlib.sha256(), _JSON), ("", None))
    return isinstance(first, list) and all(isinstance(record, dict) for record in first[:1])


class _Reading:
    """The boxes of a file while it is read."""

    def __init__(self, path: Path, clip_ids: Sequence[str], num_slots: int, box_notes: BoxNotes) -> None:
        self.path, self.clip_ids, self.num_slots, self.box_notes = path, clip_ids, num_slots, box_notes
        self.digest, self.wanted, self.store = hashlib.sha256(), set(clip_ids), TrackStore()
        self.others: list[str] = []
        self.num_frames = self.num_full = self.num_boxes = 0

    def takes(self, clip_id: str) -> bool:
        """Return whether a clip is wanted. Raises InputError when it was read before."""
        if clip_id in self.store:
            raise InputError(f"{self.path}: clip {clip_id!r} is listed twice")
        if clip_id not in self.wanted:
            self.others.append(clip_id)
        return clip_id in self.wanted

    def add(self, clip_id: str, tracks: Tracks, counts: NDArray[np.int64]) -> None:
        """Keep a clip, which has so many boxes in each of its frames."""
        self.store.add(clip_id, tracks)
        self.num_frames, self.num_full = (
            self.num_frames + len(counts),
            self.num_full + int((counts > self.num_slots).sum()),
        )
        self.num_boxes += int(counts.clip(max=self.num_slots).sum())

    def done(self, facts: BoxFileFacts | None, *, have_classes: bool) -> Proposals:
        """Return all of it. Raises InputError when it holds none of the clips."""
        name, others = self.path.name, self.others
        if not len(self.store):
            first = f"; its first is {others[0]!r:.200}, theirs {self.clip_ids[0]!r:.200}" if others else ""
            raise InputError(f"{self.path}: has boxes of none of the {len(self.clip_ids)} clips{first}")
        absent = [clip_id for clip_id in self.clip_ids if clip_id not in self.store]
        notes = self.box_notes.lines(expects_subjects=have_classes)
        if self.num_full:
            notes.append(
                f"{self.num_full} of {self.num_frames} frames have more than {self.num_slots} boxes; "
                "the others are left out"
            )
        if absent:
            notes.append(f"{len(absent)} clips have no boxes in {name}, the first: {absent[0]}")
        if others:
            notes.append(f"{len(others)} clips of {name} are not extracted, the first: {others[0]}")
        return Proposals(
            store=self.store,
            digest=self.digest.hexdigest(),
            filled=self.num_boxes / max(1, self.num_frames * self.num_slots),
            notes=notes,
            facts=facts,
        )


def _slots(
    path: Path, clip_id: str, rows: _Rows, num_slots: int, box_notes: BoxNotes
) -> tuple[Tracks, NDArray[np.int64]]:
    """Return a clip's boxes by frame and slot, and how many each frame has.

    Raises:
        InputError: a corner or a score is not finite or absurd.
    """
    score = np.zeros(len(rows.frame)) if rows.score is None else rows.score
    # A comparison with NaN is False.
    sound = (np.abs(rows.box) <= MAX_COORDINATE).all(axis=1) & (np.abs(score) <= _MAX_SCORE)
    if not sound.all():
        row = int(np.flatnonzero(~sound)[0])
        found = [*rows.box[row].tolist(), *([] if rows.score is None else [float(score[row])])]
        raise InputError(
            f"{path}: clip {clip_id!r}, frame {rows.frame[row] + 1}: box {found} is not finite numbers x1, y1, x2, y2 "
            "in pixels"
        )
    frames = np.unique(rows.frame)
    has_area = (rows.box[:, 2:] > rows.box[:, :2]).all(axis=1)
    for row in np.flatnonzero(~has_area).tolist():
        box_notes.add_flat(f"clip {clip_id!r}, frame {rows.frame[row] + 1}: {rows.box[row].tolist()}")
    frame, box = rows.frame[has_area], rows.box[has_area]
    order = np.lexsort((-score[has_area], frame))
    frame, box = frame[order], box[order]
    place = np.searchsorted(frames, frame)
    counts = np.bincount(place, minlength=len(frames))
    slot = np.arange(len(frame)) - (np.cumsum(counts) - counts)[place]
    kept = slot < num_slots
    boxes = np.full((len(frames), min(num_slots, int(counts.max(initial=0))), 4), np.nan, np.float32)
    boxes[place[kept], slot[kept]] = box[kept]
    return Tracks(frames=frames, boxes=boxes, categories=np.full(boxes.shape[1], Category.OBJECT, np.uint8)), counts


def _read_json(path: Path, digest: hashlib._Hash) -> Iterator[tuple[str, _Rows]]:
    width = 0
    for clip_id, frames in stream_entries(path, digest, _JSON):
        if not isinstance(frames, dict):
            raise InputError(
                f"{path}: clip {clip_id!r}: expected {{frame number: boxes}}, found {type(frames).__name__}"
            )
        numbers, values = [], []
        seen: set[int] = set()
        for key, boxes in frames.items():
            number = int(key) if _FRAME.fullmatch(key) else 0
            if not 1 <= number <= MAX_FRAME_NUMBER or number in seen:
                raise InputError(
                    f"{path}: clip {clip_id!r}: frame number {key!r:.80}; expected whole numbers from 1, each once"
                )
            seen.add(number)
            for box in boxes if isinstance(boxes, list) else [boxes]:
                width = width or (len(box) if isinstance(box, list) else 0)
                values.append(_numbers(path, clip_id, key, box, width))
                numbers.append(number - 1)
        table = np.array(values, np.float64).reshape(-1, max(4, width))
        score = table[:, 4] if width == 5 else None
        yield clip_id, _Rows(frame=np.array(numbers, np.int64), box=table[:, :4], score=score)


def _numbers(path: Path, clip_id: str, frame: str, box: Any, width: int) -> list[float]:
    """Return a box as it is in the file, when it is as many numbers as the file's first one, 4 or 5."""
    plain = isinstance(box, list) and all(type(value) in (int, float) for value in box)
    if not plain or len(box) != width or width not in (4, 5) or not all(abs(value) < 1e300 for value in box):
        raise InputError(
            f"{path}: clip {clip_id!r}, frame {frame}: box {box!r:.120}; expected numbers [x1, y1, x2, y2], or with a "
            "score behind them in every box of the file"
        )
    return [float(value) for value in box]


def _read_npz(path: Path, digest: hashlib._Hash) -> Iterator[tuple[str, _Rows]]:
    with path.open("rb") as file:
        while content := file.read(1 << 20):
            digest.update(content)
    try:
        clip, frame, box = read_arrays(path, ("clip", "frame", "box")).values()
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]}; expected {_ARRAYS}") from error
    except NpzError as error:
        raise InputError(f"{path}: {error}; expected {_ARRAYS}") from error
    score = _scores(path)
    kinds = clip.dtype.kind == "U" and frame.dtype.kind in "iu" and box.dtype.kind in "iuf"
    shapes = clip.ndim == 1 and frame.shape == clip.shape and box.shape == (len(clip), 4)
    if not kinds or not shapes or (score is not None and (score.shape != clip.shape or score.dtype.kind not in "iuf")):
        found = ", ".join(f"{array.dtype} {array.shape}" for array in (clip, frame, box, score) if array is not None)
        raise InputError(f"{path}: holds {found}; expected {_ARRAYS}")
    wrong = np.flatnonzero((frame < 1) | (frame > MAX_FRAME_NUMBER))
    if len(wrong):
        where = f"clip {str(clip[wrong[0]])!r:.200}: frame number {frame[wrong[0]]}"
        raise InputError(f"{path}: {where}; expected 1 to {MAX_FRAME_NUMBER:,}")
    order = np.argsort(clip, kind="stable")
    bounds = np.flatnonzero(clip[order][1:] != clip[order][:-1]) + 1
    for rows in np.split(order, bounds) if len(order) else []:
        yield (
            str(clip[rows[0]]),
            _Rows(
                frame=frame[rows].astype(np.int64) - 1,
                box=box[rows].astype(np.float64),
                score=None if score is None else score[rows].astype(np.float64),
            ),
        )


def _scores(path: Path) -> NDArray[Any] | None:
    try:
        (score,) = read_arrays(path, ("score",)).values()
    except KeyError:
        return None
    except NpzError as error:
        raise InputError(f"{path}: {error}; expected {_ARRAYS}") from error
    return score
