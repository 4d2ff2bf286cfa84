"""The boxes of a data set's clips, out of files of any form."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from ifcar.extract.datasets.box_files import reading
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.tracks import Tracks


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBoxes:
    """What files say of clips.

    Args:
        of_clips: tracks by clip id, frames numbered from 0 as those of the clip's source.
        others: names of the videos that no clip shows.
        notes: what the files were taken for, a line each.
        digest: SHA-256 over their content and, where they are named, the classes that are subjects.
    """

    of_clips: Iterator[tuple[str, Tracks]]
    others: Sequence[str]
    notes: Sequence[str]
    digest: str


def read_clip_boxes(path: Path, clips: Sequence[Clip], subjects: str | None, box_notes: BoxNotes) -> ClipBoxes:
    """Read what a file, or a folder of them, says of clips: a video's boxes are those of every clip of it.

    Args:
        path: the file or folder.
        clips: a video of the files is a clip of that id, or the source that is called so.
        subjects: classes that are subjects, with commas between; None: hands and persons.
        box_notes: looks at the boxes as they are taken.

    Raises:
        InputError: see `reading.read_box_files`; or no box is of a class that is to be a subject.
    """
    named = _named(clips)
    found = reading.read_box_files(reading.given_paths(path), named)
    if subjects is not None:
        reading.check_subjects(subjects, found.kinds(), path)
    kinds = reading.subject_kinds(subjects, found.kinds())

    def of_clips() -> Iterator[tuple[str, Tracks]]:
        for name in sorted(found.videos.keys() & named.keys()):
            video = found.videos[name]
            for clip in named[name]:
                seen_in = reading.SeenIn.of(video, clip.source, clip.frame_size)
                yield clip.clip_id, reading.tracks_of(name, video, kinds, seen_in, box_notes)

    others = sorted(found.videos.keys() - named.keys())
    digest = found.digest
    if subjects is not None:
        digest = hashlib.sha256(f"{digest} {sorted(kinds)}".encode()).hexdigest()
    return ClipBoxes(of_clips=of_clips(), others=others, notes=found.notes, digest=digest)


def _named(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Return the clips by each name that files may call them: an id, or that of a source that is called like no other.

    An id is the name of its clip alone.
    """
    named = {normalize("NFC", clip.clip_id): [clip] for clip in clips}
    of_sources: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.source is not None:
            name = clip.source.name if clip.source.is_dir() else clip.source.stem
            of_sources.setdefault(normalize("NFC", name), []).append(clip)
    one_source = {name: own for name, own in of_sources.items() if len({clip.source for clip in own}) == 1}
    return one_source | named
