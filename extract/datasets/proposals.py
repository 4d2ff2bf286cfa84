"""Boxes of a file in place of those of a dataset: proposals, any number a frame and without classes, or tracks.

    NAME.json    {clip id: [record, …], …}: detections, tracks with classes, see `ifcar.extract.datasets.detected_boxes`
    NAME.json    {clip id: {frame number: [[x1, y1, x2, y2], …], …}, …}, or [x1, y1, x2, y2, score]
    NAME.npz     clip (B,) text, frame (B,) whole numbers, box (B, 4), and perhaps score (B,); as np.savez writes them
    all others   a file or a folder in a form of `ifcar.extract.datasets.box_files`: tracks with classes, of which some
                 are subjects; frame numbers are those of the source

The content says which it is.
Proposals are pixels of the source's frames; of ava's without pixels, whose frames are 1 × 1, shares of their sides.
Frame numbers count from 1, as in the names of frames, at the dataset's annotation rate. They have no tracks: the k-th
box of a frame sits in slot k, by falling score, or in the file's order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import ArraySpec
from ifcar.cache.schema import Category
from ifcar.counts import count_of
from ifcar.data_files import absence
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.box_files.contract import BoxFile
from ifcar.extract.datasets.box_files.of_clips import read_clip_boxes
from ifcar.extract.datasets.box_files.reading import is_of_form
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.detected_boxes import BoxFileFacts, read_detected, read_facts
from ifcar.extract.datasets.json_stream import stream_entries
from ifcar.extract.datasets.proposal_rows import BY_FRAME, FRAME_KEY, ProposalRows, read_json_rows, read_npz_rows
from ifcar.extract.datasets.something_else import COCO_KEYS
from ifcar.extract.limits import MAX_COORDINATE
from ifcar.extract.track_store import TrackStore
from ifcar.extract.tracks import Tracks

_MAX_SCORE = 1e30
_ZIP = b"PK"


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposals:
    """The boxes of a file, for the clips of a dataset.

    Args:
        store: the boxes of the clips that the file has.
        digest: SHA-256 of the file.
        filled: share of the slots that hold a box, over the frames that the file lists for these clips.
        notes: one line for everything about the file that is incomplete.
        facts: how they were detected, where a file beside it says so; what the boxes carry follows from it.
        of_source: whether frame numbers are those of the clips' sources, and not the dataset's.
        have_classes: whether they say what is a subject.
    """

    store: TrackStore
    digest: str
    filled: float
    notes: Sequence[str]
    have_classes: bool
    facts: BoxFileFacts | None = None
    of_source: bool = False

    @property
    def carried(self) -> tuple[ArraySpec, ...]:
        """Return the arrays that the tracks carry beside boxes."""
        return () if self.facts is None else self.facts.arrays()

    def boxes(self, clip_id: str) -> Tracks:
        """Return a clip's boxes; none where the file lacks it."""
        return self.store.get_or_none(clip_id)


def read_proposals(
    path: Path, clips: Sequence[Clip], num_slots: int, *, shares: bool = False, subjects: str | None = None
) -> Proposals:
    """Read the boxes of these clips; of proposals, at most as many a frame as there are slots.

    Args:
        path: see above.
        clips: the clips.
        num_slots: N.
        shares: whether the frames of the clips are 1 × 1, so that boxes are shares of their sides.
        subjects: classes that are subjects, with commas between; None: hands and persons.

    Raises:
        MissingDataError: no such file.
        InputError: it is not of that form, has a box that is none, or has none of the clips; or subjects are named and
            it says itself what a subject is.
    """
    if not path.exists():
        raise MissingDataError(f"{path}: {absence(path)}; expected a file of boxes, or a folder of them")
    reading = _Reading(path, [clip.clip_id for clip in clips], num_slots, BoxNotes(shares=shares))
    kind = _kind_of(path)
    if kind == "form":
        return _read_form(reading, clips, subjects)
    if subjects is not None:
        what = "has no classes" if kind != "records" else "says itself what a subject is"
        raise InputError(f"--subjects {subjects} would be ignored: {path} {what}; leave it out")
    if kind == "records":
        facts = read_facts(path)
        for clip_id, tracks in read_detected(path, facts, reading.digest, reading.wanted, reading.box_notes):
            if reading.takes(clip_id) and tracks is not None:
                reading.add_tracks(clip_id, tracks)
        return reading.done(facts, have_classes=True)
    for clip_id, rows in (read_json_rows if kind == "by frame" else read_npz_rows)(path, reading.digest):
        if reading.takes(clip_id):
            tracks, counts = _slots(path, clip_id, rows, num_slots, reading.box_notes)
            reading.box_notes.add_clip(f"{clip_id!r} of {path}", tracks.boxes, tracks.categories)
            reading.add(clip_id, tracks, counts)
    return reading.done(None, have_classes=False)


def _kind_of(path: Path) -> Literal["records", "by frame", "arrays", "form"]:
    """Return what a path holds, as told by its first bytes and, of JSON, by its first entry that is not empty."""
    if path.is_dir():
        return "form"
    file = BoxFile(path, PurePosixPath(path.name), ())
    if file.begin.startswith(_ZIP):
        return "arrays"
    if not file.is_json:
        return "form"
    entries = stream_entries(path, hashlib.sha256(), BY_FRAME)
    key, first = next((entry for entry in entries if entry[1] != {}), ("", {}))
    if isinstance(first, list) and key not in COCO_KEYS and all(isinstance(record, dict) for record in first[:1]):
        return "records"
    by_frame = isinstance(first, dict) and all(FRAME_KEY.fullmatch(name) for name in first)
    return "form" if not by_frame and is_of_form(file) else "by frame"


def _read_form(reading: _Reading, clips: Sequence[Clip], subjects: str | None) -> Proposals:
    """Return the boxes of a file or folder of any form."""
    found = read_clip_boxes(reading.path, clips, subjects, reading.box_notes)
    for clip_id, tracks in found.of_clips:
        reading.add_tracks(clip_id, tracks)
    reading.others += found.others
    done = reading.done(None, have_classes=True)
    return replace(done, digest=found.digest, of_source=True, notes=[*found.notes, *done.notes])


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
        self.num_frames += len(counts)
        self.num_full += int((counts > self.num_slots).sum())
        self.num_boxes += int(counts.clip(max=self.num_slots).sum())

    def add_tracks(self, clip_id: str, tracks: Tracks) -> None:
        """Keep a clip's tracks."""
        self.add(clip_id, tracks, np.isfinite(tracks.boxes[..., 0]).sum(axis=1))

    def done(self, facts: BoxFileFacts | None, *, have_classes: bool) -> Proposals:
        """Return all of it. Raises InputError when it holds none of the clips."""
        name, others = self.path.name, self.others
        if not len(self.store):
            first = f"; its first is {others[0]!r:.200}, theirs {self.clip_ids[0]!r:.200}" if others else ""
            raise InputError(f"{self.path}: has boxes of none of the {len(self.clip_ids)} clips{first}")
        absent = [clip_id for clip_id in self.clip_ids if clip_id not in self.store]
        notes = self.box_notes.lines(expects_subjects=have_classes)
        if self.num_full:
            frames = count_of(self.num_full, "has", of=f"{self.num_frames} frames")
            notes.append(f"{frames} more than {self.num_slots} boxes; the others are left out")
        if absent:
            notes.append(f"{count_of(len(absent), 'clip has')} no boxes in {name}, the first: {absent[0]}")
        if others:
            count = count_of(len(others), f"clip of {name} is")
            notes.append(f"{count} not extracted, the first: {others[0]}")
        return Proposals(
            store=self.store,
            digest=self.digest.hexdigest(),
            filled=self.num_boxes / max(1, self.num_frames * self.num_slots),
            notes=notes,
            have_classes=have_classes,
            facts=facts,
        )


def _slots(
    path: Path, clip_id: str, rows: ProposalRows, num_slots: int, box_notes: BoxNotes
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
