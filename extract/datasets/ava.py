"""AVA (Gu et al. 2018): what each person does at one key frame a second of 15-minute stretches of films.

A clip is a key frame with its persons, each of which has labels of its own. Facts of the files that the reader relies
on: middle_frame_timestamp counts whole seconds from the beginning of the video as published, and a folder of frames
holds 30 a second from second 900; corners are shares of the frame; a box has a row for each of its actions; the
evaluation knows 60 of the 80 actions, and boxes of none of the 60 are persons without a label.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.errors import InputError
from ifcar.extract.datasets.ava_files import read_action_list, read_excluded, read_key_frames
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.contract import Clip, Dataset, Erratum, Listing, Progress, register_dataset
from ifcar.extract.datasets.instance_labels import LabelledInstance, instance_space
from ifcar.extract.datasets.key_frames import Corners, KeyFrameBox
from ifcar.extract.datasets.label_tables import protocol_table
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _KeyFrame:
    """A key frame and some of its persons.

    Args:
        video: the video's name.
        second: where it lies in the video.
        split: the part that it belongs to.
        persons: classes of each person, by the box.
    """

    video: str
    second: int
    split: Split
    persons: Mapping[Corners, set[int]]

    @property
    def name(self) -> str:
        """VIDEO,SECOND, as the files begin a line."""
        return f"{self.video},{self.second:04d}"

    def labelled(self) -> list[LabelledInstance]:
        """Return the persons; each one's id is VIDEO,SECOND,x1,y1,x2,y2."""
        boxes = ((KeyFrameBox(video=self.video, second=self.second, corners=c), own) for c, own in self.persons.items())
        return [LabelledInstance(name=box.name, classes=classes) for box, classes in boxes]


@register_dataset
class Ava(Dataset):
    """AVA v2.2: annotations as published, and the videos."""

    name = "ava"
    summary = "AVA v2.2: the actions (60 evaluated) of each person at each key frame, from annotated boxes"
    default_root = "ava"
    mirror_safe = True
    annotation_fps = 30.0
    frames_on_clock = True
    errata = (
        Erratum(
            "Seconds count from the beginning of the video as published, and folders of frames begin with "
            "second 900. Frame 1 of a folder is taken as second 900.",
            source="ava_train_v2.2.csv, ava_val_v2.2.csv, and how the field cuts frames",
        ),
        Erratum(
            "Some rows are there twice, some seconds are to be left out, and only 60 of 80 actions are "
            "evaluated. Rows count once, those seconds are left out, and a person with none of the 60 has no "
            "label.",
            source="the published lists of v2.2",
        ),
    )

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._actions: dict[int, str] = {}
        self._frames: dict[str, _KeyFrame] = {}
        self._sources: dict[str, Path] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the annotations are there."""
        self.require_files(
            (ACTION_LIST, *(self._part_files(part)[0].name for part in PARTS)),
            "unpack the annotations of AVA v2.2 (ava_train_v2.2.csv, ava_val_v2.2.csv, the excluded timestamps of "
            f"both, {ACTION_LIST}) there, and the videos into videos/",
        )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read both parts; boxes of videos that are not there are left out, counted in one line a video."""
        digest = hashlib.sha256()
        self._actions = read_action_list(self.root / ACTION_LIST, digest)
        class_of = {number: place for place, number in enumerate(self._actions)}
        self._sources, notes = self._find_sources() if needs_pixels else ({}, [])
        problems: list[str] = []
        self._frames, self._sizes = {}, {}
        part_of: dict[str, str] = {}
        for part, split in PARTS.items():
            boxes_path, excluded_path = self._part_files(part)
            box_notes = BoxNotes()
            found = read_key_frames(boxes_path, class_of, digest, box_notes)
            excluded = found.leave_out(read_excluded(excluded_path, digest))
            absent: dict[str, int] = {}
            for (video, second), persons in sorted(found.persons.items()):
                if part_of.setdefault(video, part) != part:
                    raise InputError(f"{boxes_path}: video {video!r} is also in the train part; expected one part")
                if needs_pixels and video not in self._sources:
                    absent[video] = absent.get(video, 0) + len(persons)
                    continue
                self._add(_KeyFrame(video=video, second=second, split=split, persons=persons))
            problems += [
                f"{video}: {count_of(n, 'box', 'boxes')} left out, no videos/{video}.mp4 or frames/{video}/"
                for video, n in absent.items()
            ]
            file = boxes_path.name
            notes += [f"{count_of(excluded, 'box', 'boxes')} of {file} at excluded timestamps"] if excluded else []
            doubled = count_of(found.doubled, f"row of {file} is doubled, counts")
            notes += [f"{doubled} once"] if found.doubled else []
            notes += box_notes.lines()
        clips = [self._clip(clip_id, needs_pixels=needs_pixels) for clip_id in self._frames]
        notes += [*self._cut_note(), *self._crowd_note()]
        return Listing(clips=clips, notes=notes, problems=problems, digest=digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return the boxes of the clip's persons, all subjects, held over the clip."""
        frame = self._frames[clip_id]
        width, height = self._size(frame.video)
        boxes = np.array(list(frame.persons)) * (width, height, width, height)
        start, stop = self._span(frame)
        first, last = int(start * self.annotation_fps), int(stop * self.annotation_fps)
        frames = np.arange(max(0, first - _MARGIN_FRAMES), last + _MARGIN_FRAMES)
        return Tracks.held(frames, boxes.astype(np.float32))

    def num_tracks(self, clip_id: str) -> int:
        """Return how many persons a clip has."""
        return len(self._frames[clip_id].persons)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `official`: trained on the train part, tested on the val part; groups are videos."""
        classes = [f"{number} {name}" for number, name in self._actions.items()]
        frames = {clip_id: self._frames[clip_id] for clip_id in clip_ids}
        persons = {clip_id: frame.labelled() for clip_id, frame in frames.items()}
        space = instance_space("actions", "multi", classes, clip_ids, persons)
        split = {clip_id: frame.split for clip_id, frame in frames.items()}
        videos = {clip_id: frame.video for clip_id, frame in frames.items()}
        return [protocol_table("official", [space], clip_ids, split, videos, "video")], []

    def _add(self, frame: _KeyFrame) -> None:
        """List a key frame, with more persons than a row has slots for as several clips."""
        persons = list(frame.persons.items())
        step = self.num_instances or len(persons)
        for number, start in enumerate(range(0, len(persons), step)):
            clip_id = frame.name if not number else f"{frame.name}/{number + 1}"
            self._frames[clip_id] = replace(frame, persons=dict(persons[start : start + step]))

    def _clip(self, clip_id: str, *, needs_pixels: bool) -> Clip:
        """Return a clip. Without pixels the frame is 1 × 1: corners are shares, so that sizes do not matter."""
        frame = self._frames[clip_id]
        return Clip(
            clip_id=clip_id,
            source=self._sources.get(frame.video),
            frame_size=None if needs_pixels else (1, 1),
            span_sec=self._span(frame),
            frames_on_clock=self.frames_on_clock,
            segment="" if clip_id == frame.name else frame.name,
        )

    def _cut_note(self) -> list[str]:
        cut = [clip_id for clip_id, frame in self._frames.items() if self._middle_sec(frame) < CLIP_SEC / 2]
        count = count_of(len(cut), "clip begins before its source and is", "clips begin before their source and are")
        return [f"{count} cut, the first: {cut[0]}"] if cut else []

    def _crowd_note(self) -> list[str]:
        rows = Counter(frame.name for frame in self._frames.values())
        several = [count for count in rows.values() if count > 1]
        if not several:
            return []
        persons = Counter[str]()
        for frame in self._frames.values():
            persons[frame.name] += len(frame.persons)
        return [
            f"{count_of(len(several), 'has', of=f'{len(rows)} key frames')} more than {self.num_instances} "
            f"persons, in {sum(several)} clips; persons of different clips do not see each other; --instances "
            f"{max(persons.values())} keeps each key frame in one"
        ]

    def _size(self, video: str) -> tuple[int, int]:
        """Return a video's frame size, read once a process. Raises DecodeError for a video that cannot be read."""
        if video not in self._sources:
            return 1, 1
        if video not in self._sizes:
            self._sizes[video] = frame_size(self._sources[video])
        return self._sizes[video]

    def _part_files(self, part: str) -> tuple[Path, Path]:
        return self.root / f"ava_{part}_v2.2.csv", self.root / f"ava_{part}_excluded_timestamps_v2.2.csv"

    def _span(self, frame: _KeyFrame) -> tuple[float, float]:
        """Return the seconds of the source that a key frame's clip covers."""
        middle = self._middle_sec(frame)
        return max(0.0, middle - CLIP_SEC / 2), middle + CLIP_SEC / 2

    def _middle_sec(self, frame: _KeyFrame) -> int:
        """Return the second of the source at which a key frame is. Raises InputError when it has no such one."""
        source = self._sources.get(frame.video)
        if source is None or not source.is_dir():
            return frame.second
        if frame.second < FRAMES_BEGIN_SEC:
            raise InputError(
                f"clip {frame.name!r}: its key frame is second {frame.second} of video {frame.video!r}, but its folder "
                f"of frames, {source}, begins at second {FRAMES_BEGIN_SEC}, as all of AVA's do; give the whole video "
                f"as videos/{frame.video}.mp4 and take the folder away, or count the seconds from {FRAMES_BEGIN_SEC}"
            )
        return frame.second - FRAMES_BEGIN_SEC

    def _find_sources(self) -> tuple[dict[str, Path], list[str]]:
        return find_sources(
            [Place(folder=self.root / "frames"), Place(folder=self.root / "videos", endings=VIDEO_ENDINGS)],
            f"{self.root}: no pixels; put AVA's videos there as videos/VIDEO_ID.mp4, .mkv or .webm, or frames as "
            "frames/VIDEO_ID/, or extract boxes only with --backbone none",
        )
