"""A folder of one's own videos with a table of their labels.

labels.csv             a header and a row a clip: video, label (label;label;… for several) and perhaps split (train,
                       test or nothing), start_sec, end_sec, group, fps (of a folder of frames)
videos/NAME.mp4        or .mov, .mkv, .webm, .avi, …; several rows may share one
frames/NAME/0001.jpg   instead
boxes/ or boxes.*      files of boxes in any of the forms of `ifcar.extract.datasets.box_files`, by frame
                       numbers of the video; need not be there
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

import numpy as np

from ifcar.cache.protocols import ProtocolTable
from ifcar.counts import count_of
from ifcar.data_files import entries, subfolders
from ifcar.errors import InputError, MissingDataError, nearest
from ifcar.extract.datasets.box_files import reading
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.contract import WHOLE_VIDEO_SEC, Clip, Dataset, Listing, Progress, register_dataset
from ifcar.extract.datasets.folder_labels import (
    LABELS,
    LabelFile,
    LabelRow,
    divided_note,
    draw_split,
    label_notes,
    read_labels,
    split_note,
)
from ifcar.extract.datasets.label_tables import incomplete, multi_labels, protocol_table, single_labels
from ifcar.extract.datasets.pixel_sources import Place, find_sources
from ifcar.extract.decode import probe
from ifcar.extract.frame_folder import frame_files
from ifcar.extract.frame_times import frames_of_span
from ifcar.extract.limits import DecodeError
from ifcar.extract.track_store import TrackStore
from ifcar.extract.tracks import Tracks

PROTOCOL = "own"
VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Own:
    """What is known of a clip: its row, its source, and the frames to which its boxes are cut; None: to none."""

    row: LabelRow
    source: Path
    frames: tuple[int, int] | None = None


@register_dataset
class Folder(Dataset):
    """One's own videos, labels and, where there are some, boxes."""

    name = "folder"
    summary = "your own videos: videos/ and labels.csv, boxes in the common forms or none (docs/datasets.md)"
    default_root = "folder"
    annotation_fps = None
    default_sampling = "annotated"
    takes_subjects = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._labels: LabelFile | None = None
        self._clips: dict[str, _Own] = {}
        self._tracks = TrackStore()

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the folder holds labels and videos."""
        for path in (self.root, self.root / LABELS):
            if not path.exists():
                raise MissingDataError(
                    f"{path}: not there; expected a folder with labels.csv (video,label), videos/NAME.mp4 or "
                    "frames/NAME/0001.jpg and, where there are boxes, boxes/; name it with --data-root"
                )
        if not any((self.root / name).is_dir() for name in ("videos", "frames")):
            raise MissingDataError(f"{self.root}: neither videos/ nor frames/; put the videos of labels.csv there")

    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read labels and boxes; rows without their video, and videos without a row, are listed and left out."""
        self._labels = read_labels(self.root / LABELS)
        sources, notes = self._sources()
        rows = _named(self._labels.rows)
        problems: list[str] = []
        self._clips, self._tracks = {}, TrackStore()
        for clip_id, row in rows.items():
            source = _source_of(row.video, sources)
            if source is None:
                hint = nearest(row.video, [path.name for path in sources.values()])
                problems.append(f"{clip_id}: left out, neither videos/ nor frames/ has {row.video!r}{hint}")
            else:
                _check_rate(row, source)
                self._clips[clip_id] = _Own(row=row, source=source)
        used = {own.source for own in self._clips.values()}
        unused = [path for path in sources.values() if path not in used]
        if unused:
            count = count_of(len(unused), "is", of=f"{len(sources)} videos")
            notes.append(f"{count} not in {LABELS}, the first: {unused[0].name}")
        if self._labels.unread:
            notes.append(f"{LABELS}: columns that are not read: {', '.join(map(repr, self._labels.unread))}")
        notes += self._read_boxes(sources)
        clips = [clip for clip_id in self._clips if (clip := self._clip(clip_id, needs_pixels, problems)) is not None]
        return Listing(clips=clips, notes=notes, problems=problems, digest=self._digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return the boxes of the clip's video; none where there are none."""
        own = self._clips[clip_id]
        found = self._tracks.get_or_none(_stem(own.row.video))
        return found if own.frames is None else found.at(np.arange(*own.frames))

    def num_tracks(self, clip_id: str) -> int:
        """Return how many tracks the clip's video has."""
        name = _stem(self._clips[clip_id].row.video)
        return self._tracks.num_tracks(name) if name in self._tracks else 0

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `own`: the split of labels.csv, or one drawn by groups where it has none."""
        assert self._labels is not None
        file, rows = self._labels, _named(self._labels.rows)
        labels = {clip_id: row.labels for clip_id, row in rows.items() if row.labels}
        stated = any(row.group for row in rows.values())
        groups = {clip_id: row.group or f"video {row.video}" for clip_id, row in rows.items()}
        kind = "group" if stated else "video"
        split = {clip_id: row.split for clip_id, row in rows.items() if row.split is not None}
        if not file.has_split:
            drawn = {c: own for c, own in labels.items() if c in self._clips}
            split = draw_split(drawn, groups)
        number_of = {name: number for number, name in enumerate(file.classes)}
        numbers = {clip_id: [number_of[name] for name in own] for clip_id, own in labels.items()}
        if file.is_multi:
            space = multi_labels(file.classes, clip_ids, numbers, unlabelled="negative")
        else:
            split = {clip_id: part for clip_id, part in split.items() if clip_id in labels}
            space = single_labels(file.classes, clip_ids, {clip_id: own[0] for clip_id, own in numbers.items()})
        table = protocol_table(PROTOCOL, [space], clip_ids, split, groups, kind)
        return [table], [
            *label_notes(file, len(rows) - len(labels)),
            *(divided_note(split, groups, kind) if file.has_split else [split_note(split, groups, kind)]),
            *incomplete(table, split, clip_ids),
        ]

    def _sources(self) -> tuple[dict[str, Path], list[str]]:
        found, notes = find_sources(
            [Place(folder=self.root / "videos", endings=VIDEO_ENDINGS), Place(folder=self.root / "frames")]
        )
        if not found:
            others = [path.name for path in (*entries(self.root / "videos"), *subfolders(self.root / "frames"))]
            first = f"; the first entry there is {others[0]!r:.80}" if others else ""
            raise MissingDataError(
                f"{self.root}: no video in videos/ ({', '.join(VIDEO_ENDINGS)}) and no folder in frames/{first}"
            )
        return {normalize("NFC", name): path for name, path in found.items()}, notes

    def _read_boxes(self, sources: Mapping[str, Path]) -> list[str]:
        """Read the files of boxes; return what they were taken for, and what is strange about them."""
        spans = [(clip_id, own.row.span_sec, own.row.fps) for clip_id, own in self._clips.items()]
        self._digest = hashlib.sha256(repr(spans).encode())
        paths = reading.box_paths(self.root)
        if not paths and self.subjects is not None:
            raise InputError(f"--subjects {self.subjects} would be ignored: {self.root} has neither boxes/ nor boxes.*")
        found, box_notes = reading.read_box_files(paths, sources), BoxNotes()
        self._digest.update(found.digest.encode())
        if self.subjects is not None:
            reading.check_subjects(self.subjects, found.kinds(), self.root)
        subjects = reading.subject_kinds(self.subjects, found.kinds())
        of_clips = {_stem(own.row.video): own.source for own in self._clips.values()}
        for name in sorted(of_clips.keys() & found.videos.keys()):
            video = found.videos[name]
            try:
                seen_in = reading.SeenIn.of(video, of_clips[name])
            except DecodeError:
                continue  # its clips fail with the reason
            self._tracks.add(name, reading.tracks_of(name, video, subjects, seen_in, box_notes))
        notes = [*found.notes, *box_notes.lines()]
        strange, without = found.videos.keys() - of_clips.keys(), of_clips.keys() - found.videos.keys()
        if strange and of_clips and not of_clips.keys() & found.videos.keys():
            first = min(strange)
            raise InputError(
                f"{found.videos[first].path}: boxes of video {first!r:.80}, and no box file names one of the "
                f"{len(of_clips)} videos of {LABELS}{nearest(first, of_clips, '.')} Rename the box files or what they "
                "name, or move them out of the way to go on without boxes"
            )
        if strange:
            videos = count_of(len(strange), "video")
            notes.append(f"boxes of {videos} that no clip shows are not read, the first: {min(strange)!r}")
        if paths and without:
            count = count_of(len(without), "has", of=f"{len(of_clips)} videos")
            notes.append(f"{count} no boxes, the first: {min(without)!r}")
        return notes

    def _clip(self, clip_id: str, needs_pixels: bool, problems: list[str]) -> Clip | None:
        """Return a clip, without pixels one whose boxes are cut to its span; None, and a problem, where it has none."""
        own = self._clips[clip_id]
        row, source = own.row, own.source
        try:
            if not needs_pixels:
                if _stem(row.video) not in self._tracks:
                    problems.append(f"{clip_id}: left out, it has no boxes, and no pixels are read")
                    return None
                info = probe(source)
                clock = info.clock if row.fps is None else replace(info.clock, fps=row.fps)
                frames = (0, info.num_frames) if row.span_sec is None else frames_of_span(row.span_sec, clock)
                self._clips[clip_id] = replace(own, frames=frames)
                problems += self._past_end(clip_id, info.num_frames)
                return Clip(clip_id=clip_id, source=source, frame_size=(info.width, info.height))
            if source.is_dir() and row.span_sec is None:  # seconds of these frames are not known, their number is
                num_frames = max(frame_files(source))
                self._clips[clip_id] = replace(own, frames=(0, num_frames))
                problems += self._past_end(clip_id, num_frames)
        except InputError as error:
            if not needs_pixels:
                problems.append(f"{clip_id}: left out, {error}")
                return None  # with pixels it fails when it is decoded, with the same reason
        span = row.span_sec if row.span_sec is not None or source.is_dir() else WHOLE_VIDEO_SEC
        return Clip(clip_id=clip_id, source=source, frame_size=None, span_sec=span, source_fps=row.fps)

    def _past_end(self, clip_id: str, num_frames: int) -> list[str]:
        """Return a line where a clip's boxes reach past the end of its source, whose frames bound what is seen."""
        name = _stem(self._clips[clip_id].row.video)
        last = int(self._tracks.get(name).frames[-1]) if name in self._tracks else -1
        if last < num_frames:
            return []
        return [f"{clip_id}: its boxes reach up to frame {last + 1} of a source of {num_frames}; they end there"]


def _named(rows: Sequence[LabelRow]) -> dict[str, LabelRow]:
    """Return the rows by clip id: the video's name, with the span behind it where it has several rows.

    Raises:
        InputError: two rows are of the same span of the same video.
    """
    counts = Counter(_stem(row.video) for row in rows)
    places = {name: place for place, name in enumerate(counts)}
    named: dict[str, LabelRow] = {}
    for row in sorted(rows, key=lambda row: places[_stem(row.video)]):  # clips of a video follow each other
        name = _stem(row.video)
        start, stop = row.span_sec or (0.0, float("inf"))
        clip_id = name if counts[name] == 1 else f"{name},{start:g}-{'end' if stop == float('inf') else f'{stop:g}'}"
        if clip_id in named:
            seconds = f", from {start:g} to {stop:g} s" if row.span_sec else ""
            raise InputError(
                f"{row.where}: video {row.video!r:.80}{seconds}, is a clip already, of {named[clip_id].where}; "
                "expected one row for it, several labels with ; between, or other seconds (start_sec, end_sec)"
            )
        named[clip_id] = row
    return named


def _stem(video: str) -> str:
    """Return a video's name without its ending."""
    name = Path(video)
    return name.stem if name.suffix.lower() in VIDEO_ENDINGS else video


def _source_of(video: str, sources: dict[str, Path]) -> Path | None:
    source = sources.get(_stem(video))
    if source is None or video in (_stem(video), normalize("NFC", source.name)):
        return source
    return None


def _check_rate(row: LabelRow, source: Path) -> None:
    """Raise InputError where seconds of a folder of frames have no rate, or a video's rate would be ignored."""
    if source.is_dir() and row.span_sec is not None and row.fps is None:
        raise InputError(
            f"{row.where}: start_sec and end_sec of a folder of frames, {source}, need its rate; add the column fps"
        )
    if row.fps is not None and not source.is_dir():
        raise InputError(f"{row.where}: fps would be ignored, as {source} states its own rate; leave it empty")
