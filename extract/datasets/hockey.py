"""Hockey: clips of ice hockey games that show several activities at once (Sozykin et al. 2018).

The data set has no published layout, so this one is ours:

    annotations.csv     a header and a row a clip: clip_id, video, start_sec, end_sec, split, labels (label;label;…)
    classes.txt         a class a line
    videos/VIDEO.mp4    (.mkv, .webm, .avi); several clips may share one
    boxes.json          optional, in Something-Else's record format: {clip_id: [{"name": "clip_id/0001.jpg", …}, …]};
                        frame numbers count at 30 a second of the video's clock, as start_sec does, from 1
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.errors import InputError, MissingDataError, nearest
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.box_records import read_tracks, stream_records
from ifcar.extract.datasets.contract import Clip, Dataset, Listing, Progress, register_dataset
from ifcar.extract.datasets.folder_labels import SPLITS, checked_span
from ifcar.extract.datasets.label_tables import multi_labels, protocol_table
from ifcar.extract.datasets.pixel_sources import Place, find_sources
from ifcar.extract.datasets.text_rows import class_names, column_rows, finite_number
from ifcar.extract.decode import frame_size
from ifcar.extract.limits import DecodeError
from ifcar.extract.track_store import TrackStore
from ifcar.extract.tracks import Tracks

COLUMNS = ("clip_id", "video", "start_sec", "end_sec", "split", "labels")
VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi")


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """A row of annotations.csv.

    Args:
        video: the video's name without ending.
        span_sec: seconds of the video that the clip covers.
        split: its part.
        classes: class numbers of its labels.
    """

    video: str
    span_sec: tuple[float, float]
    split: Split
    classes: frozenset[int]


@register_dataset
class Hockey(Dataset):
    """Clips of longer videos with several labels each, and boxes where there are some."""

    name = "hockey"
    summary = "Hockey: clips with several activities each, with or without boxes (layout: docs/datasets.md)"
    default_root = "hockey"
    annotation_fps = 30.0
    frames_on_clock = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._classes: list[str] = []
        self._annotations: dict[str, Annotation] = {}
        self._tracks = TrackStore()

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that annotations and videos are there."""
        for name in ("annotations.csv", "classes.txt", "videos"):
            if not (self.root / name).exists():
                raise MissingDataError(
                    f"{self.root}: no {name}; expected annotations.csv ({', '.join(COLUMNS)}), classes.txt (a class a "
                    "line), videos/VIDEO.mp4 and, where there are boxes, boxes.json"
                )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read annotations and boxes; clips whose video is not there are listed and left out."""
        digest = hashlib.sha256()
        self._classes = class_names(self.root / "classes.txt", digest)
        self._annotations = read_annotations(self.root / "annotations.csv", self._classes, digest)
        self._tracks = TrackStore()
        box_lines = self._read_boxes(self.root / "boxes.json", digest)
        sources, notes = find_sources([Place(folder=self.root / "videos", endings=VIDEO_ENDINGS)])
        problems: list[str] = []
        sizes: dict[str, tuple[int, int]] = {}
        clips: list[Clip] = []
        for clip_id, annotation in self._annotations.items():
            source = sources.get(annotation.video)
            if source is None:
                problems.append(f"{clip_id}: left out, there is no videos/{annotation.video}.mp4")
                continue
            if not needs_pixels and clip_id not in self._tracks:
                problems.append(f"{clip_id}: left out, it has no boxes, and no pixels are read")
                continue
            if not needs_pixels and annotation.video not in sizes:
                try:
                    sizes[annotation.video] = frame_size(source)
                except DecodeError as error:
                    problems.append(f"{clip_id}: left out, {error}")
                    continue
            clips.append(
                Clip(
                    clip_id=clip_id,
                    source=source,
                    frame_size=sizes.get(annotation.video),
                    span_sec=annotation.span_sec,
                    frames_on_clock=self.frames_on_clock,
                )
            )
        return Listing(clips=clips, notes=box_lines + notes, problems=problems, digest=digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return the clip's boxes; none where boxes.json has none."""
        return self._tracks.get_or_none(clip_id)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `official`, the split of annotations.csv; groups are videos."""
        rows = self._annotations
        space = multi_labels(self._classes, clip_ids, {clip_id: row.classes for clip_id, row in rows.items()})
        split = {clip_id: row.split for clip_id, row in rows.items()}
        videos = {clip_id: row.video for clip_id, row in rows.items()}
        return [protocol_table("official", [space], clip_ids, split, videos, "video")], []

    def _read_boxes(self, path: Path, digest: hashlib._Hash) -> list[str]:
        """Read boxes.json where there is one; return a line for boxes without area, and for those of no clip."""
        if not path.is_file():
            return []
        box_notes, strange = BoxNotes(), 0
        for clip_id, records in stream_records(path, digest):
            if clip_id in self._tracks:
                raise InputError(f"{path}: clip {clip_id!r} is annotated twice")
            tracks = read_tracks(path, clip_id, records, box_notes)
            if clip_id not in self._annotations:
                strange += 1
            elif len(tracks.frames):
                self._tracks.add(clip_id, tracks)
        strays = count_of(strange, f"clip of {path.name} is")
        lines = [f"{strays} not in annotations.csv"] if strange else []
        return box_notes.lines() + lines


def read_annotations(path: Path, classes: Sequence[str], digest: hashlib._Hash) -> dict[str, Annotation]:
    """Return the clips by their id, in the file's order.

    Raises:
        MissingDataError: no such file.
        InputError: a column is missing, or a row is not of that form.
    """
    number_of = {name: number for number, name in enumerate(classes)}
    annotations: dict[str, Annotation] = {}
    for where, fields in column_rows(path, digest, COLUMNS, f"a header and rows of {', '.join(COLUMNS)}"):
        clip_id = fields["clip_id"]
        if not clip_id or clip_id in annotations:
            raise InputError(f"{where}: clip_id is {clip_id!r:.60}; expected each id once, and none empty")
        annotations[clip_id] = _annotation(where, fields, number_of)
    if not annotations:
        raise InputError(f"{path}: holds no clip; expected a header and rows of {', '.join(COLUMNS)}")
    return annotations


def _annotation(where: str, fields: Mapping[str, str], number_of: Mapping[str, int]) -> Annotation:
    span = checked_span(where, *(finite_number(where, name, fields[name]) for name in ("start_sec", "end_sec")))
    if fields["split"] not in SPLITS:
        raise InputError(f"{where}: split is {fields['split']!r:.40}; expected train, test, or nothing")
    labels = [label.strip() for label in fields["labels"].split(";") if label.strip()]
    unknown = next((label for label in labels if label not in number_of), None)
    if unknown is not None:
        raise InputError(f"{where}: classes.txt has no {unknown!r:.60}{nearest(unknown, number_of)}")
    return Annotation(
        video=fields["video"],
        span_sec=span,
        split=SPLITS[fields["split"]],
        classes=frozenset(number_of[label] for label in labels),
    )
