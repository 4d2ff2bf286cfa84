"""Something-Else (Materzynska et al. 2020): Something-Something v2 videos with hand and object boxes.

Facts of the files that the reader relies on: a record's `name` ("ID/0007.jpg", frames from 1) says which frame it
annotates, never its position; frame numbers count at 12 per second; `standard_category` is "0000", "0001", … for the
objects of the label and "hand" (or "person") for subjects; boxes may reach past the border.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ifcar.cache.protocols import ProtocolTable
from ifcar.data_files import absence, entries
from ifcar.errors import InputError, MissingDataError, nearest
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.box_records import FRAME_NAME, read_tracks, stream_records
from ifcar.extract.datasets.contract import Clip, Dataset, Erratum, Listing, Progress, register_dataset
from ifcar.extract.datasets.pixel_sources import Place, find_sources
from ifcar.extract.datasets.splits import read_protocols
from ifcar.extract.datasets.strict_json import read_json
from ifcar.extract.track_store import TrackStore
from ifcar.extract.tracks import Tracks
from ifcar.text_files import without_mark

_PEEK_BYTES = 64
_MAX_SIDE = 1 << 16
COCO_KEYS = frozenset({"info", "licenses", "images", "annotations", "categories", "videos"})
VIDEO_ENDINGS = (".webm", ".mp4")


@register_dataset
class SomethingElse(Dataset):
    """Frames or videos, box annotations and splits under one folder."""

    name = "something-else"
    summary = "Something-Something v2 videos with Something-Else boxes and splits (174 actions)"
    default_root = "something-else"
    errata: ClassVar[Sequence[Erratum]] = (
        Erratum(
            "A record's place in its clip's list is not its frame's number: that in its name counts, from 1.",
            source="annotations.json",
        ),
        Erratum("All hands of a clip have one name. They are linked over time by overlap.", source="annotations.json"),
    )

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
        box_notes = BoxNotes()
        self._tracks = TrackStore()
        for path in self._annotation_files():
            for clip_id, records in stream_records(path, digest):
                if clip_id in COCO_KEYS:
                    raise InputError(
                        f"{path}: COCO JSON, as it has {clip_id!r}; expected Something-Else's records, {{clip id: "
                        "[record, …]}}; --dataset folder reads COCO"
                    )
                if clip_id in self._tracks:
                    raise InputError(f"{path}: clip {clip_id!r} is annotated twice")
                self._tracks.add(clip_id, read_tracks(path, clip_id, records, box_notes))
        sizes = self._sizes()
        sources, notes = self._sources() if needs_pixels else ({}, [])
        if self._annotation_parts() and self._annotation_parts() != self._annotation_files():
            notes.append(f"{self.root / 'annotations'} is not read, as annotations.json is there")
        problems: list[str] = []
        clips: list[Clip] = []
        for clip_id in sorted(self._tracks, key=_by_number):
            if needs_pixels and clip_id not in sources:
                problems.append(f"{clip_id}: annotated, but there is no frames/{clip_id}/ nor videos/{clip_id}.webm")
            elif not needs_pixels and clip_id not in sizes:
                problems.append(f"{clip_id}: no size in videoid2size.json, which is needed without pixels")
            elif not self._tracks.num_frames(clip_id):
                problems.append(f"{clip_id}: its annotation lists no frame")
            else:
                clips.append(Clip(clip_id=clip_id, source=sources.get(clip_id), frame_size=sizes.get(clip_id)))
        problems += [f"{c}: has pixels, but no annotation" for c in sorted(set(sources) - set(self._tracks))]
        notes = box_notes.lines() + notes
        return Listing(clips=clips, notes=notes, problems=problems, digest=digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return the boxes of a clip that `listing` named."""
        return self._tracks.get(clip_id)

    def num_tracks(self, clip_id: str) -> int:
        """Return how many tracks a clip that `listing` named has."""
        return self._tracks.num_tracks(clip_id)

    def annotation_files(self) -> Sequence[Path]:
        """Return annotations, sizes and splits, and the folders of frames and videos."""
        whole = [self.root / "annotations.json", self.root / "annotations", self.root / "videoid2size.json"]
        splits = self.root / "splits"
        pixels = [self.root / "frames", self.root / "videos"]
        return [*whole, *self._annotation_parts(), splits, *sorted(splits.rglob("*")), *pixels]

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Read every folder below splits/."""
        return read_protocols(self.root / "splits", clip_ids)

    def _annotation_files(self) -> list[Path]:
        single = self.root / "annotations.json"
        return [single] if single.is_file() else self._annotation_parts()

    def _annotation_parts(self) -> list[Path]:
        return entries(self.root / "annotations", ".json")

    def _sources(self) -> tuple[dict[str, Path], list[str]]:
        return find_sources(
            [Place(folder=self.root / "frames"), Place(folder=self.root / "videos", endings=VIDEO_ENDINGS)],
            f"{self.root}: no pixels; put frames/ID/0001.jpg … or videos/ID.webm there (Something-Something v2), or "
            "extract boxes only with --backbone none",
        )

    def _sizes(self) -> dict[str, tuple[int, int]]:
        path = self.root / "videoid2size.json"
        if not path.is_file():
            return {}
        content = read_json(path)
        if not isinstance(content, dict):
            raise InputError(f"{path}: expected {{id: [width, height]}}, found {type(content).__name__}")
        for clip_id, size in content.items():
            whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
            if not whole or not all(1 <= side <= _MAX_SIDE for side in size):
                raise InputError(
                    f"{path}: {clip_id!r}: {size!r:.60}; expected [width, height], 1 to {_MAX_SIDE} pixels"
                )
        return {clip_id: (size[0], size[1]) for clip_id, size in content.items()}


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
        raise MissingDataError(f"{path}: {absence(path)}; expected boxes in Something-Else's record format (JSON)")
    if _begins_as_list(path):
        content = read_json(path)
        chosen, records = _stated_clip(path, content), content
        _choose_clip(path, [chosen], clip_id, likely_id)
    else:
        chosen, records = _find_clip(path, clip_id, likely_id)
    box_notes = BoxNotes()
    tracks = read_tracks(path, chosen, records, box_notes)
    if not tracks.boxes.shape[1]:
        why = "; ".join(["", *box_notes.lines(expects_subjects=False)])
        raise InputError(f"{path}: clip {chosen!r}: none of its {len(tracks.frames)} records has a box{why}")
    return chosen, tracks


def _begins_as_list(path: Path) -> bool:
    with path.open("rb") as file:
        return without_mark(file.read(_PEEK_BYTES), path).lstrip()[:1] == b"["


def _find_clip(path: Path, clip_id: str | None, likely_id: str) -> tuple[str, Any]:
    """Return the id and the records of the chosen clip, with no other clip's records in memory."""
    known: list[str] = []
    kept: dict[str, Any] = {}
    for found, records in stream_records(path, hashlib.sha256()):
        if found in kept:
            raise InputError(f"{path}: clip {found!r} is annotated twice")
        if not known or found == (likely_id if clip_id is None else clip_id):
            kept[found] = records
        known.append(found)
    chosen = _choose_clip(path, known, clip_id, likely_id)
    return chosen, kept[chosen]


def _stated_clip(path: Path, records: Sequence[Any]) -> str:
    """Return the clip id that the first of these records names."""
    first = records[0] if records else None
    name = first.get("name") if isinstance(first, dict) else None
    match = FRAME_NAME.fullmatch(name) if isinstance(name, str) else None
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
            f"{path}: {len(known)} clips and none is called {likely_id!r}{nearest(likely_id, known, '.')} "
            f"Choose one with --clip, the first is {known[0]!r}"
        )
    return known[0]


def _by_number(clip_id: str) -> tuple[bool, int, str, str]:
    """Order ids of digits by their number, whatever its length, before all others."""
    if clip_id.isascii() and clip_id.isdecimal():
        digits = clip_id.lstrip("0")
        return False, len(digits), digits, clip_id
    return True, 0, "", clip_id
