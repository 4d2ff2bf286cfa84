"""Something-Else (Materzynska et al. 2020): Something-Something v2 videos with hand and object boxes.

Facts of the files that the reader relies on: a record's `name` ("ID/0007.jpg", frames from 1) says which frame it
annotates, never its position; frame numbers count at 12 per second; `standard_category` is "0000", "0001", … for the
objects of the label and "hand" (or "person") for subjects; boxes may reach past the border.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import numpy as np

from ifcar.cache.schema import ProtocolTable
from ifcar.errors import InputError, MissingDataError, nearest
from ifcar.extract.datasets.contract import Clip, Dataset, Listing, Progress, register_dataset
from ifcar.extract.datasets.splits import read_json, read_protocols
from ifcar.extract.track_store import TrackStore
from ifcar.extract.tracks import Detection, Tracks, link

SUBJECTS = frozenset({"hand", "person"})
_PEEK_BYTES = 64
VIDEO_ENDINGS = (".webm", ".mp4")
FRAME_NAME = re.compile(r"^(?P<clip>.+)/(?P<frame>\d+)\.[A-Za-z]+$")


@register_dataset
class SomethingElse(Dataset):
    """Frames or videos, box annotations and splits under one folder."""

    name = "something-else"
    summary = "Something-Something v2 videos with Something-Else boxes and splits (174 actions)"
    default_root = "something-else"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._tracks = TrackStore()

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the folder and its annotations are there."""
        if not self.root.is_dir():
            raise MissingDataError(
                f"{self.root}: no such folder; put annotations.json (Something-Else boxes), frames/ID/0001.jpg … or "
                "videos/ID.webm (Something-Something v2), and splits/PROTOCOL/*.json there, or name it with --data-root"
            )
        if not self._annotation_files():
            raise MissingDataError(
                f"{self.root}: neither annotations.json nor annotations/*.json; download the box annotations of "
                "Something-Else and put them there"
            )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read every annotation part and pair it with pixels or sizes; what does not pair is listed."""
        digest = hashlib.sha256()
        self._tracks = TrackStore()
        for path in self._annotation_files():
            for clip_id, records in stream_records(path, digest):
                if clip_id in self._tracks:
                    raise InputError(f"{path}: clip {clip_id!r} is annotated twice")
                self._tracks.add(clip_id, read_tracks(path, clip_id, records))
        sizes = self._sizes()
        sources = self._sources() if needs_pixels else {}
        problems: list[str] = []
        clips: list[Clip] = []
        for clip_id in sorted(self._tracks, key=lambda c: (not c.isdecimal(), int(c) if c.isdecimal() else 0, c)):
            if needs_pixels and clip_id not in sources:
                problems.append(f"{clip_id}: annotated, but there is no frames/{clip_id}/ nor videos/{clip_id}.webm")
            elif not needs_pixels and clip_id not in sizes:
                problems.append(f"{clip_id}: no size in videoid2size.json, which is needed without pixels")
            elif not self._tracks.num_frames(clip_id):
                problems.append(f"{clip_id}: its annotation lists no frame")
            else:
                clips.append(Clip(clip_id=clip_id, source=sources.get(clip_id), frame_size=sizes.get(clip_id)))
        problems += [f"{c}: has pixels, but no annotation" for c in sorted(set(sources) - set(self._tracks))]
        return Listing(clips=clips, problems=problems, digest=digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return the boxes of a clip that `listing` named."""
        return self._tracks.get(clip_id)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Read every folder below splits/."""
        return read_protocols(self.root / "splits", clip_ids)

    def _annotation_files(self) -> list[Path]:
        single = self.root / "annotations.json"
        return [single] if single.is_file() else sorted((self.root / "annotations").glob("*.json"))

    def _sources(self) -> dict[str, Path]:
        sources: dict[str, Path] = {}
        videos = self.root / "videos"
        for path in sorted(videos.iterdir()) if videos.is_dir() else []:
            if path.suffix.lower() in VIDEO_ENDINGS:
                sources[path.stem] = path
        frames = self.root / "frames"
        for path in sorted(frames.iterdir()) if frames.is_dir() else []:
            if path.is_dir():
                sources[path.name] = path
        if not sources:
            raise MissingDataError(
                f"{self.root}: no pixels; put frames/ID/0001.jpg … or videos/ID.webm there (Something-Something v2), "
                "or extract boxes only with --backbone none"
            )
        return sources

    def _sizes(self) -> dict[str, tuple[int, int]]:
        path = self.root / "videoid2size.json"
        if not path.is_file():
            return {}
        content = read_json(path)
        try:
            return {str(k): (int(v[0]), int(v[1])) for k, v in content.items()}
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}: expected {{id: [width, height]}} ({error})") from error


class _HashedFile:
    """A binary file whose bytes enter a digest as they are read."""

    def __init__(self, file: BinaryIO, digest: hashlib._Hash) -> None:
        self.file, self.digest = file, digest

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        content = self.file.read(size)
        self.digest.update(content)
        return content


def stream_records(path: Path, digest: hashlib._Hash) -> Iterator[tuple[str, Any]]:
    """Yield (clip id, records) of an annotation file one clip at a time, so that memory does not grow with the file.

    Args:
        path: JSON, {clip id: [record, …]}.
        digest: takes the file's bytes; complete when the iterator has ended.

    Raises:
        InputError: not JSON, or not of that form.
    """
    with path.open("rb") as file:
        first = file.read(_PEEK_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if first and first != b"{":
            found = f"it begins with {first.decode(errors='replace')!r}"
            raise InputError(f"{path}: expected a JSON object {{clip id: [record, …]}}, but {found}")
        file.seek(0)
        try:
            yield from ijson.kvitems(_HashedFile(file, digest), "", use_float=True)
        except ijson.JSONError as error:
            problem = " ".join(str(error).split())
            raise InputError(
                f"{path}: not valid JSON before byte {file.tell():,} ({problem}); download it again"
            ) from error


def _records_by_clip(path: Path, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object {{clip id: [record, …]}}, found {type(content).__name__}")
    return content


def read_one_clip(path: Path, clip_id: str | None, likely_id: str) -> tuple[str, Tracks]:
    """Read one clip's boxes from an annotation file, or from a file that holds just one clip's list of records.

    Args:
        path: JSON, {clip id: [record, …]} or [record, …].
        clip_id: the clip; None takes `likely_id` where the file has it, else the only clip that the file has.
        likely_id: the name that the clip probably has.

    Returns:
        The clip's id and its tracks, with at least one frame and one box.

    Raises:
        MissingDataError: no such file.
        InputError: not of that form, no such clip, several to choose from, or no box.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; expected boxes in Something-Else's record format (JSON)")
    content = read_json(path)
    if isinstance(content, list):
        content = {_stated_clip(path, content): content}
    by_clip = _records_by_clip(path, content)
    chosen = _choose_clip(path, list(by_clip), clip_id, likely_id)
    tracks = read_tracks(path, chosen, by_clip[chosen])
    if not tracks.boxes.shape[1]:
        raise InputError(f"{path}: clip {chosen!r}: none of its {len(tracks.frames)} records has a box")
    return chosen, tracks


def _stated_clip(path: Path, records: list[Any]) -> str:
    """Return the clip id that the first of these records names."""
    first = records[0] if records else None
    name = first.get("name") if isinstance(first, dict) else None
    match = FRAME_NAME.match(name) if isinstance(name, str) else None
    if match is None:
        found = f"the name {name!r}" if records else "an empty list"
        raise InputError(f"{path}: expected records {{'name': 'ID/0001.jpg', 'labels': […]}}, found {found}")
    return match["clip"]


def _choose_clip(path: Path, known: Sequence[str], clip_id: str | None, likely_id: str) -> str:
    if not known:
        raise InputError(f"{path}: holds no clip; expected {{clip id: [record, …]}}")
    if clip_id is not None:
        if clip_id not in known:
            hint = nearest(clip_id, known) or f"; it holds {len(known)}, the first is {known[0]!r}"
            raise InputError(f"{path}: no clip {clip_id!r}{hint}")
        return clip_id
    if likely_id in known:
        return likely_id
    if len(known) > 1:
        raise InputError(
            f"{path}: {len(known)} clips and none is called {likely_id!r}{nearest(likely_id, known)}; "
            f"choose one with --clip, the first is {known[0]!r}"
        )
    return known[0]


def read_tracks(path: Path, clip_id: str, records: Any) -> Tracks:
    """Turn one clip's annotation records into tracks.

    Args:
        path: the file, for messages.
        clip_id: the clip.
        records: list of {"name": "ID/0001.jpg", "labels": [{"box2d", "standard_category"}, …]}.

    Raises:
        InputError: a record is not of that form, or two records name the same frame.
    """
    if not isinstance(records, list):
        raise InputError(f"{path}: clip {clip_id!r}: expected a list of records, found {type(records).__name__}")
    by_frame: dict[int, list[Detection]] = {}
    for record in records:
        frame = _frame_number(path, clip_id, record)
        if frame in by_frame:
            raise InputError(f"{path}: clip {clip_id!r}: two records name the frame {record['name']!r}")
        labels = record.get("labels") or []
        if not isinstance(labels, list):
            raise InputError(f"{path}: {record['name']}: labels are a {type(labels).__name__}; expected a list")
        by_frame[frame] = [_detection(path, record["name"], label) for label in labels]
    frames = np.array(sorted(by_frame), np.int64)
    return link(frames, [by_frame[int(f)] for f in frames])


def _frame_number(path: Path, clip_id: str, record: Any) -> int:
    """Return the frame number from 0 that a record's name states."""
    name = record.get("name") if isinstance(record, dict) else None
    match = FRAME_NAME.match(name) if isinstance(name, str) else None
    if match is None or match["clip"] != clip_id or int(match["frame"]) < 1:
        raise InputError(f"{path}: clip {clip_id!r}: record name {name!r} is not '{clip_id}/0001.jpg' or later")
    return int(match["frame"]) - 1


def _detection(path: Path, frame_name: str, label: Mapping[str, Any]) -> Detection:
    try:
        key = str(label["standard_category"])
        box = label["box2d"]
        x1, y1, x2, y2 = (float(box[k]) for k in ("x1", "y1", "x2", "y2"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {frame_name}: a label lacks standard_category or box2d x1, y1, x2, y2") from error
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise InputError(f"{path}: {frame_name}: box of {key!r} is not finite: {(x1, y1, x2, y2)}")
    return Detection(key=key, is_subject=key in SUBJECTS, box=(x1, y1, x2, y2))
