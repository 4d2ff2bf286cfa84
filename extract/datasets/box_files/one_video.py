"""The boxes of one new video, out of a file of any form."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ifcar.extract.datasets.box_files.reading import SeenIn, read_video_boxes, subject_kinds, tracks_of
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.detected_boxes import BoxFileFacts
from ifcar.extract.datasets.json_stream import stream_entries
from ifcar.extract.datasets.something_else import COCO_KEYS, read_one_clip
from ifcar.extract.tracks import Tracks
from ifcar.text_files import without_mark

_PEEK_BYTES = 64
_FORM = "{clip id: [record, …]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class OneVideo:
    """The boxes of one video.

    Args:
        clip_id: its name in the file.
        tracks: its boxes.
        of_source: whether frame numbers of a file are those of the video's own frames, whatever a dataset's are.
        notes: what the file was taken for, and what is strange about the boxes, a line each.
        facts: how they were detected, and at which rate frame numbers count; None: of a file that does not say it.
    """

    clip_id: str
    tracks: Tracks
    of_source: bool = False
    notes: tuple[str, ...] = ()
    facts: BoxFileFacts | None = None


def read_one_video(
    path: Path, clip: str | None, likely: str, source: Path, *, subjects: str | None, own: bool
) -> OneVideo:
    """Read the boxes of one video.

    Args:
        path: a file of boxes, or a folder with one a picture.
        clip: the video's name in the file; None takes `likely`, or the only one.
        likely: the name that it probably has.
        source: the video.
        subjects: classes that are subjects, with commas between; None: hands and persons.
        own: whether Something-Else's records count the video's own frames too, as in dataset `folder`, and not those of
            another dataset.

    Raises:
        MissingDataError, InputError: see `read_one_clip` and `read_video_boxes`.
    """
    if not path.is_dir() and not own and (not path.is_file() or _holds_records(path)):
        clip_id, tracks = read_one_clip(path, clip, likely)
        return OneVideo(clip_id=clip_id, tracks=tracks)
    name, found = read_video_boxes(path, clip, likely)
    video, box_notes = found.videos[name], BoxNotes()
    chosen = subject_kinds(subjects, found.kinds())
    tracks = tracks_of(name, video, chosen, SeenIn.of(video, source), box_notes)
    return OneVideo(clip_id=name, tracks=tracks, of_source=True, notes=(*found.notes, *box_notes.lines()))


def _holds_records(path: Path) -> bool:
    """Return whether a JSON file holds Something-Else's records, of one clip or of several."""
    with path.open("rb") as file:
        first = without_mark(file.read(_PEEK_BYTES), path).lstrip()[:1]
    if first != b"{":
        return first == b"["
    key, value = next(stream_entries(path, hashlib.sha256(), _FORM), ("", []))
    return isinstance(value, list) and key not in COCO_KEYS
