"""Home Action Genome (Rai et al. 2021): daily activities seen by several cameras, with sound and atomic actions.

Layout 1, also in a folder hacgen/                        Layout 2
action_split_data/V1.0/P/P_R_VIEW_A.mkv                   ego-and-3rd-person-view/P/P_R_VIEW_A.mkv
list_with_activity_labels/{train,val,test}_list.csv       activity_lists/{train,test}_list.csv
annotation_files/atomic_actions/P/P_R_A__aa.json          annotations/atomic_actions/P/P_R_A_aa.json
classInd.txt, classInd_atomic.txt                         annotations/scene_graph_annotations/, found, not read

A recording P_R_A is cut into windows of four seconds, the same for all of its cameras: the segments. A clip is a window
of one camera, P_R_VIEW_A_tSECOND. View v000 is camera "ego", v001 "third-1", and so on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ifcar.cache.protocols import UNKNOWN, LabelSpace, ProtocolTable
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.errors import MissingDataError
from ifcar.extract.container import stated_sec
from ifcar.extract.datasets.contract import Clip, Dataset, Erratum, Listing, Progress, register_dataset
from ifcar.extract.datasets.homage_few_shot import few_shot_parts
from ifcar.extract.datasets.homage_files import ANNOTATION_FPS
from ifcar.extract.datasets.homage_recordings import FILMS, HELD_OUT, LISTS, TRAIN, HomageFolder, counted
from ifcar.extract.datasets.label_tables import protocol_table, single_labels
from ifcar.extract.limits import DecodeError
from ifcar.extract.tracks import Tracks

MOST_TEST_WINDOWS = 50
_ROUNDED_SEC = 0.1  # by which a window may reach past the end of its recording
_UNEQUAL_SEC = 1.0  # between the ends of cameras of a recording, from which on it is said


@register_dataset
class Homage(Dataset):
    """Films of either layout, the activity lists, and atomic actions where they are there.

    Attributes:
        window_sec: length of a window.
        train_stride_sec: from one window to the next, of recordings that are trained on alone.
        test_stride_sec: of the others.
    """

    name = "homage"
    summary = "Home Action Genome: activities (one label) and atomic actions (several), several cameras, sound"
    default_root = "homage"
    errata: ClassVar[Sequence[Erratum]] = (
        Erratum(
            "45 files of atomic actions are empty. Their recordings have an activity; their atomic actions are not "
            "known, and count neither in training nor in a measure.",
            source="the published lists and annotation files, 825 sequences",
        ),
        Erratum(
            "p0030_r001_a000 is listed with two activities, so it is left out. Of 825 sequences 782 have the ego "
            "view, and none of p0001, which are for validation.",
            source="the published activity lists",
        ),
        Erratum(
            "Frame numbers of atomic actions count from 1 and include the last: start mod 30 is 1, end mod 30 "
            "is 0. The numbers of frames that the films' headers state are wrong.",
            source="9,703 segments of the published annotation files",
        ),
    )
    default_frames = 16
    default_crop = 128
    annotation_fps = ANNOTATION_FPS
    window_sec: ClassVar[float] = 4.0
    train_stride_sec: ClassVar[float] = 4.0
    test_stride_sec: ClassVar[float] = 3.0

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._files = HomageFolder(root)
        self._clips: dict[str, tuple[str, tuple[float, float]]] = {}  # id → recording, span in seconds

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the train list and one of the others are there."""
        files = HomageFolder(self.root)
        if files.list_of(TRAIN) is None or not any(files.list_of(part) for part in HELD_OUT.values()):
            raise MissingDataError(
                f"{self.root}: no {LISTS[0]}/ or {LISTS[1]}/ with train_list.csv and test_list.csv or val_list.csv; "
                f"put Home Action Genome's lists there and its films into {FILMS[0]}/ or {FILMS[1]}/, or name the "
                "folder with --data-root"
            )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read lists, atomic actions and the lengths of films; recordings without a film are listed and left out."""
        digest = hashlib.sha256()
        problems: list[str] = []
        self._files = HomageFolder(self.root)
        notes = self._files.read(digest, problems)
        clips: list[Clip] = []
        unequal: list[str] = []
        long = 0
        for name, recording in self._files.recordings.items():
            length_sec, problem = _length(recording.films, name, unequal)
            if length_sec is None:
                problems.append(f"{name}: left out, {problem}")
                continue
            is_tested = not recording.parts <= {TRAIN}
            spans = windows(length_sec, self.window_sec, self.test_stride_sec if is_tested else self.train_stride_sec)
            long += is_tested and len(spans) > MOST_TEST_WINDOWS
            clips += self._clips_of(name, spans[: MOST_TEST_WINDOWS if is_tested else None], needs_pixels)
        self._clips = {clip.clip_id: (clip.segment.rpartition("_")[0], _span(clip)) for clip in clips}
        without = [
            name for name, recording in self._files.recordings.items() if recording.films and 0 not in recording.films
        ]
        notes += counted(without, "recording has", "no ego camera (v000)")
        cut = f"{count_of(len(unequal), 'recording is')} cut at the shortest camera"
        notes += [f"{cut}, as {first}" for first in unequal[:1]]
        kept = count_of(long, "recording of tests keeps its", "recordings of tests keep their")
        notes += [f"{kept} first {MOST_TEST_WINDOWS} windows"] if long else []
        notes += self._files.scene_graphs()
        return Listing(clips=clips, notes=notes, problems=problems, digest=digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return no boxes: those of scene graphs are not read."""
        return Tracks.none()

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `split-1` (tested on the val list), `split-2` (on the test list) and few-shot ones, by recordings."""
        recordings = {clip_id: self._clips[clip_id][0] for clip_id in clip_ids}
        spaces = (self._activity_space(clip_ids, recordings), *self._atomic_spaces(clip_ids, recordings))
        parts, notes = dict[str, dict[str, Split]](), list[str]()
        for name, tested in HELD_OUT.items():
            if tested in self._files.parts:
                split_of = {TRAIN: Split.TRAIN, tested: Split.TEST}
                known = self._files.recordings.items()
                parts[name] = {own: split_of[part] for own, r in known for part in r.parts & split_of.keys()}
            else:
                notes.append(f"protocol {name}: left out, there is no {tested}_list.csv")
        if self._files.atomic:
            parts |= few_shot_parts(self._files.activities, *self._few_shot_lists())
        tables = []
        for name, part_of in parts.items():
            split = {clip_id: part_of[own] for clip_id, own in recordings.items() if own in part_of}
            tables.append(protocol_table(name, spaces, clip_ids, split, recordings, "recording"))
        return tables, notes

    def _few_shot_lists(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the activities of the recordings for training, and of those for the tests of the first protocol."""
        tested = next(part for part in HELD_OUT.values() if part in self._files.parts)
        listed = [
            {name: r.activity for name, r in self._files.recordings.items() if p in r.parts} for p in (TRAIN, tested)
        ]
        return listed[0], listed[1]

    def _activity_space(self, clip_ids: Sequence[str], recordings: Mapping[str, str]) -> LabelSpace:
        number_of = {name: number for number, name in enumerate(self._files.activities)}
        labels = {own: number_of[self._files.recordings[name].activity] for own, name in recordings.items()}
        return replace(single_labels(self._files.activities, clip_ids, labels), name="activity")

    def _atomic_spaces(self, clip_ids: Sequence[str], recordings: Mapping[str, str]) -> tuple[LabelSpace, ...]:
        """Return every action that overlaps a window; all are unknown where a recording's are not annotated."""
        if not self._files.atomic:
            return ()
        number_of = {name: number for number, name in enumerate(self._files.atomic)}
        targets = np.zeros((len(clip_ids), len(self._files.atomic)), np.int8)
        for place, clip_id in enumerate(clip_ids):
            actions = self._files.recordings[recordings[clip_id]].actions
            if actions is None:
                targets[place] = UNKNOWN
                continue
            shown = [number_of[own.name] for own in actions if own.overlaps(self._clips[clip_id][1])]
            targets[place, shown] = 1
        classes = tuple(self._files.atomic)
        return (LabelSpace(name="atomic", kind="multi", classes=classes, targets=targets, unlabelled="negative"),)

    def _clips_of(self, name: str, spans: Sequence[tuple[float, float]], needs_pixels: bool) -> Iterator[Clip]:
        start, _, activity = name.rpartition("_")
        for span in spans:
            second = f"t{span[0]:04.0f}"
            for view, path in sorted(self._files.recordings[name].films.items()):
                yield Clip(
                    clip_id=f"{start}_v{view:03d}_{activity}_{second}",
                    source=path if needs_pixels else None,
                    frame_size=None if needs_pixels else (1, 1),
                    span_sec=span,
                    segment=f"{name}_{second}",
                    camera=f"third-{view}" if view else "ego",
                )


def windows(length_sec: float, window_sec: float, stride_sec: float) -> list[tuple[float, float]]:
    """Return the [start, stop) of each window in a recording, in seconds; a short one is a window as a whole."""
    if length_sec < window_sec - _ROUNDED_SEC:
        return [(0.0, length_sec)]
    count = math.floor((length_sec + _ROUNDED_SEC - window_sec) / stride_sec) + 1
    return [(number * stride_sec, number * stride_sec + window_sec) for number in range(count)]


def _length(films: Mapping[int, Path], name: str, unequal: list[str]) -> tuple[float | None, str]:
    """Return the length of a recording, its shortest film's, or why there is none.

    A film that cannot be opened does not count: its clips fail, with the reason.
    """
    lengths: dict[Path, float] = {}
    problem = "there is no film of it"
    for path in films.values():
        try:
            found = stated_sec(path)
        except DecodeError as error:
            problem = str(error)
            continue
        if found is not None and found > 0:
            lengths[path] = found
        else:
            problem = f"{path} does not say how long it is; write it to another file with its length"
    if not lengths:
        return None, problem
    shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
    if lengths[longest] - lengths[shortest] > _UNEQUAL_SEC:
        unequal.append(
            f"{name}, {shortest.name} of {lengths[shortest]:.1f} s beside {longest.name} of {lengths[longest]:.1f} s"
        )
    return lengths[shortest], ""


def _span(clip: Clip) -> tuple[float, float]:
    assert clip.span_sec is not None
    return clip.span_sec
