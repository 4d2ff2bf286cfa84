"""AVA (Gu et al. 2018): what each person does at one key frame a second of 15-minute stretches of films.

A clip is one person's box at one key frame. Facts of the files that the reader relies on: middle_frame_timestamp counts
whole seconds from the beginning of the video as published, and a folder of frames holds 30 a second from second 900;
corners are shares of the frame; a box has a row for each of its actions; the evaluation knows 60 of the 80 actions, and
boxes of none of the 60 are clips without a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Category, Split
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.ava_files import read_action_list, read_excluded, read_key_frames
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.contract import Clip, Dataset, Listing, Progress, register_dataset
from ifcar.extract.datasets.key_frames import Corners, KeyFrameBox, parse_clip_id
from ifcar.extract.datasets.multi_label import multi_label_table
from ifcar.extract.datasets.pixel_sources import Place, find_sources
from ifcar.extract.decode import frame_size
from ifcar.extract.tracks import Tracks

CLIP_SEC = 64 / 30
"""Length of a clip around its key frame: 64 frames at 30 fps, which 32 frames at rate 2 and 8 at rate 8 span."""
FRAMES_BEGIN_SEC = 900
"""The second of the video that a folder of frames begins with, as the field cuts AVA's annotated stretch."""
_MARGIN_FRAMES = 8  # of boxes around a clip, as frames of slow videos are shown before and after its span
VIDEO_ENDINGS = (".mp4", ".mkv", ".webm")
PARTS = {"train": Split.TRAIN, "val": Split.TEST}
ACTION_LIST = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"


@register_dataset
class Ava(Dataset):
    """AVA v2.2: annotations as published, and the videos."""

    name = "ava"
    summary = "AVA v2.2: the actions (60 evaluated) of each person at each key frame, from annotated boxes"
    default_root = "ava"
    mirror_safe = True
    annotation_fps = 30.0
    frames_on_clock = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._actions: dict[int, str] = {}
        self._classes: dict[str, set[int]] = {}
        self._split: dict[str, Split] = {}
        self._persons: dict[tuple[str, int], list[Corners]] = {}
        self._sources: dict[str, Path] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the annotations are there."""
        names = [ACTION_LIST, *(self._part_files(part)[0].name for part in PARTS)]
        missing = [name for name in names if not (self.root / name).is_file()]
        if missing:
            raise MissingDataError(
                f"{self.root}: no {missing[0]}; unpack the annotations of AVA v2.2 (ava_train_v2.2.csv, "
                f"ava_val_v2.2.csv, the excluded timestamps of both, {ACTION_LIST}) there, and the videos into videos/"
            )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read both parts; boxes of videos that are not there are left out, counted in one line a video."""
        digest = hashlib.sha256()
        self._actions = read_action_list(self.root / ACTION_LIST, digest)
        class_of = {number: place for place, number in enumerate(self._actions)}
        self._sources, notes = self._find_sources() if needs_pixels else ({}, [])
        problems: list[str] = []
        self._classes, self._split, self._persons, self._sizes = {}, {}, {}, {}
        clips: list[Clip] = []
        part_of: dict[str, str] = {}
        for part, split in PARTS.items():
            boxes_path, excluded_path = self._part_files(part)
            box_notes = BoxNotes()
            found = read_key_frames(boxes_path, class_of, digest, box_notes)
            excluded = found.leave_out(read_excluded(excluded_path, digest))
            absent: dict[str, int] = {}
            cut: list[str] = []
            for box, classes in found.boxes():
                if part_of.setdefault(box.video, part) != part:
                    raise InputError(f"{boxes_path}: video {box.video!r} is also in the train part; expected one part")
                self._persons.setdefault((box.video, box.second), []).append(box.corners)
                if needs_pixels and box.video not in self._sources:
                    absent[box.video] = absent.get(box.video, 0) + 1
                    continue
                self._classes[box.clip_id], self._split[box.clip_id] = classes, split
                clips.append(self._clip(box, needs_pixels=needs_pixels))
                if self._middle_sec(box) < CLIP_SEC / 2:
                    cut.append(box.clip_id)
            problems += [
                f"{video}: {n} boxes left out, no videos/{video}.mp4 or frames/{video}/" for video, n in absent.items()
            ]
            if cut:
                notes.append(f"{len(cut)} clips begin before their source does and are cut, the first: {cut[0]}")
            notes += [f"{excluded} boxes of {boxes_path.name} are at excluded timestamps"] if excluded else []
            notes += [f"{found.doubled} rows of {boxes_path.name} are doubled, count once"] if found.doubled else []
            notes += box_notes.lines()
        return Listing(clips=clips, notes=notes, problems=problems, digest=digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return the person's box as the subject, the key frame's other persons as objects, nearest first; all held.

        The persons of a key frame are clips that differ in nothing else, so that categories say whom the labels mean.
        """
        own = parse_clip_id(clip_id)
        assert own is not None
        others = [corners for corners in self._persons[own.video, own.second] if corners != own.corners]
        others.sort(key=lambda corners: _distance(corners, own.corners))
        width, height = self._size(own.video)
        boxes = np.array([own.corners, *others]) * (width, height, width, height)
        start, stop = self._span(own)
        first, last = int(start * self.annotation_fps), int(stop * self.annotation_fps)
        frames = np.arange(max(0, first - _MARGIN_FRAMES), last + _MARGIN_FRAMES)
        categories = np.full(len(boxes), Category.OBJECT, np.uint8)
        categories[0] = Category.SUBJECT
        return Tracks(
            frames=frames,
            boxes=np.broadcast_to(boxes.astype(np.float32), (len(frames), *boxes.shape)),
            categories=categories,
        )

    def num_tracks(self, clip_id: str) -> int:
        """Return how many persons a box's key frame has."""
        own = parse_clip_id(clip_id)
        assert own is not None
        return len(self._persons[own.video, own.second])

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `official`: trained on the train part, tested on the val part; groups are videos."""
        classes = [f"{number} {name}" for number, name in self._actions.items()]
        videos = {clip_id: clip_id.rsplit(",", 5)[0] for clip_id in clip_ids}
        table = multi_label_table(
            "official", classes, clip_ids, self._classes, self._split, groups=videos, group_kind="video"
        )
        return [table], []

    def _clip(self, box: KeyFrameBox, *, needs_pixels: bool) -> Clip:
        """Return a box's clip. Without pixels the frame is 1 × 1: corners are shares, so that sizes do not matter."""
        return Clip(
            clip_id=box.clip_id,
            source=self._sources.get(box.video),
            frame_size=None if needs_pixels else (1, 1),
            span_sec=self._span(box),
            frames_on_clock=self.frames_on_clock,
        )

    def _size(self, video: str) -> tuple[int, int]:
        """Return a video's frame size, read once a process. Raises DecodeError for a video that cannot be read."""
        if video not in self._sources:
            return 1, 1
        if video not in self._sizes:
            self._sizes[video] = frame_size(self._sources[video])
        return self._sizes[video]

    def _part_files(self, part: str) -> tuple[Path, Path]:
        return self.root / f"ava_{part}_v2.2.csv", self.root / f"ava_{part}_excluded_timestamps_v2.2.csv"

    def _span(self, box: KeyFrameBox) -> tuple[float, float]:
        """Return the seconds of the source that a box's clip covers."""
        middle = self._middle_sec(box)
        return max(0.0, middle - CLIP_SEC / 2), middle + CLIP_SEC / 2

    def _middle_sec(self, box: KeyFrameBox) -> int:
        """Return the second of the source at which a box's key frame is. Raises InputError when it has no such one."""
        source = self._sources.get(box.video)
        if source is None or not source.is_dir():
            return box.second
        if box.second < FRAMES_BEGIN_SEC:
            raise InputError(
                f"clip {box.clip_id!r}: its key frame is second {box.second} of video {box.video!r}, but its folder of "
                f"frames, {source}, begins at second {FRAMES_BEGIN_SEC}, as all of AVA's do; give the whole video as "
                f"videos/{box.video}.mp4 and take the folder away, or count the seconds from {FRAMES_BEGIN_SEC}"
            )
        return box.second - FRAMES_BEGIN_SEC

    def _find_sources(self) -> tuple[dict[str, Path], list[str]]:
        sources, notes = find_sources(
            [Place(folder=self.root / "frames"), Place(folder=self.root / "videos", endings=VIDEO_ENDINGS)]
        )
        if not sources:
            raise MissingDataError(
                f"{self.root}: no pixels; put AVA's videos there as videos/VIDEO_ID.mp4, .mkv or .webm, or frames as "
                "frames/VIDEO_ID/, or extract boxes only with --backbone none"
            )
        return sources, notes


def _distance(a: Corners, b: Corners) -> float:
    """Return the squared distance of two boxes' centres, times 4."""
    return (a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2
