"""The annotations of a large data set as one binary table: clips, tracks and protocols, read in seconds.

Every start of an extraction, and every process of a cluster, needs what the annotation files say. The first start reads
them and leaves this table; later ones map it into memory, and a clip's tracks are read when they are asked for.

The table is taken while every annotation file has the size, times and number that it had when it was read: a file that
was written, moved or copied over has another time of change, whatever its contents. Its columns have one checksum, each
clip's tracks another. What it holds can be read again from the files, so a table that does not fit is passed over.

Layout: packed tracks, clip after clip; columns, each from a multiple of 8; their description as JSON; its place, size
and checksum, and the columns' checksum.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import ProtocolTable, array_names, build_protocol
from ifcar.errors import InputError
from ifcar.extract.datasets.contract import Clip, Dataset, Listing
from ifcar.extract.track_store import unpacked
from ifcar.extract.tracks import Tracks

MAGIC = b"ifcar annotations 1\n\n\n\n\n"
TRAILER = struct.Struct("<QQII")  # description: place, size, checksum; columns: checksum
PIECE = 1 << 24
ODD = "surrogateescape"  # names of files that are no UTF-8
Key = Mapping[str, Any]


def key_of(dataset: Dataset, options: Mapping[str, Any]) -> Key | None:
    """Return what a table of a data set depends on: options, and the state of each of its files.

    None where no table stands for it: its class does not say itself which files it reads, or its tracks and views carry
    more than boxes.
    """
    if "annotation_files" not in type(dataset).__dict__ or dataset.track_arrays or dataset.view_arrays:
        return None
    files = dataset.annotation_files()
    if files is None:
        return None
    return {**options, "files": {str(path): _state(path) for path in files}}


def _state(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    size = 0 if path.is_dir() else found.st_size
    return [size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


@dataclass(frozen=True, slots=True)
class _Texts:
    """n texts, one after the other: their bytes, and where each ends."""

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def __getitem__(self, number: int) -> str:
        start = int(self.ends[number - 1]) if number else 0
        return self.data[start : int(self.ends[number])].tobytes().decode(errors=ODD)[:-1]

    def part(self, start: int, stop: int) -> list[str]:
        """Return some of them, none of which has a line break."""
        first = int(self.ends[start - 1]) if start else 0
        last = int(self.ends[stop - 1]) if stop else 0
        return self.data[first:last].tobytes().decode(errors=ODD).split("\n")[:-1]


class TabledClips(Sequence[Clip]):
    """The clips of a table, or a stretch of them, each made when it is asked for.

    Args:
        ids: of all clips.
        sources: paths of all, "" for none.
        sizes: (n, 2) int32 width and height of all, −1 where not known.
        places: which of them these are.
    """

    def __init__(self, ids: _Texts, sources: _Texts, sizes: NDArray[np.int32], places: range) -> None:
        self._ids, self._sources, self._sizes, self._places = ids, sources, sizes, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, item: int) -> Clip: ...

    @overload
    def __getitem__(self, item: slice) -> TabledClips: ...

    def __getitem__(self, item: int | slice) -> Clip | TabledClips:
        if isinstance(item, slice):
            return TabledClips(self._ids, self._sources, self._sizes, self._places[item])
        place = self._places[item]
        width, height = self._sizes[place].tolist()
        source = self._sources[place]
        return Clip(
            clip_id=self._ids[place],
            source=Path(source) if source else None,
            frame_size=None if width < 0 else (width, height),
        )

    @property
    def places(self) -> slice:
        """Which clips of the table these are."""
        return slice(self._places.start, self._places.stop, self._places.step)

    def column(self, name: str) -> list[Any]:
        """Return a field of every clip."""
        if name == "clip_id" and self._places.step == 1:
            return self._ids.part(self._places.start, self._places.stop)
        if name in PLAIN:
            return [PLAIN[name]] * len(self)
        return [getattr(clip, name) for clip in self]


PLAIN: Mapping[str, Any] = {"span_sec": None, "source_fps": None, "frames_on_clock": False, "segment": "", "camera": ""}
"""Fields of clips that a table does not hold, and what each clip in one has there."""


def column(clips: Sequence[Clip], name: str) -> list[Any]:
    """Return a field of every clip."""
    return clips.column(name) if isinstance(clips, TabledClips) else [getattr(clip, name) for clip in clips]


class AnnotationTable:
    """A table, open.

    Args:
        path: of the file.
        memory: its bytes.
        about: their description.
    """

    def __init__(self, path: Path, memory: mmap.mmap, about: Mapping[str, Any]) -> None:
        self._path, self._memory, self._about = path, memory, about
        self.key: Key = about["key"]
        ids = self._texts("ids")
        clips = TabledClips(ids, self._texts("sources"), self._column("sizes"), range(about["num_clips"]))
        self.listing = Listing(
            clips=clips, notes=about["notes"], problems=about["problems"], digest=about["digest"]
        )  # fmt: skip
        self.protocol_notes: list[str] = about["protocol_notes"]
        self._counts: NDArray[np.int32] = self._column("num_tracks")
        self._ids, self._ends, self._num_frames = ids, self._column("track_ends"), self._column("num_frames")
        self._sums, self._hashes, self._by_hash = (self._column(name) for name in ("sums", "hashes", "by_hash"))

    def protocols(self) -> list[ProtocolTable]:
        """Return the protocols over the clips."""
        found = []
        for name, attributes in self._about["protocols"].items():
            arrays = {own: self._column(f"protocols/{name}/{own}").copy() for own in array_names(attributes)}
            found.append(build_protocol(name, attributes, arrays))
        return found

    def num_tracks(self, clip_id: str) -> int:
        """Return how many tracks a clip has."""
        return int(self._counts[self._place(clip_id)])

    def track_counts(self, clips: TabledClips) -> NDArray[np.int64]:
        """Return (n,) how many tracks each of these clips has."""
        return self._counts[clips.places].astype(np.int64)

    def tracks(self, clip_id: str) -> Tracks:
        """Read a clip's tracks.

        Raises:
            KeyError: there is no such clip.
            InputError: their bytes are damaged.
        """
        place = self._place(clip_id)
        start = int(self._ends[place - 1]) if place else len(MAGIC)
        content = self._memory[start : int(self._ends[place])]
        if google_crc32c.value(content) != int(self._sums[place]):
            raise InputError(f"{self._path}: clip {clip_id!r} is damaged; delete the file, and run it again")
        return unpacked(content, int(self._num_frames[place]), int(self._counts[place]), {})

    def _place(self, clip_id: str) -> int:
        value = id_hash(clip_id)
        first = int(np.searchsorted(self._hashes, value))
        while first < len(self._hashes) and self._hashes[first] == value:
            if self._ids[place := int(self._by_hash[first])] == clip_id:
                return place
            first += 1
        raise KeyError(clip_id)

    def _column(self, name: str) -> NDArray[Any]:
        dtype, shape, place = self._about["columns"][name]
        values: NDArray[Any] = np.frombuffer(self._memory, dtype, int(np.prod(shape)), place).reshape(shape)
        return values

    def _texts(self, name: str) -> _Texts:
        return _Texts(self._column(f"{name}.data"), self._column(f"{name}.ends"))


def open_table(path: Path, key: Key) -> AnnotationTable | None:
    """Open a table that was made of these files with these options; None where there is none, or a damaged one."""
    try:
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    if len(memory) < len(MAGIC) + TRAILER.size or memory[: len(MAGIC)] != MAGIC:
        return None
    place, size, about_sum, columns_sum = TRAILER.unpack(memory[-TRAILER.size :])
    text = memory[place : place + size]
    if place + size + TRAILER.size != len(memory) or google_crc32c.value(text) != about_sum:
        return None
    about = json.loads(text)
    if about["key"] != json.loads(json.dumps(key)):
        return None
    found = 0
    for start in range(about["columns_start"], place, PIECE):
        found = google_crc32c.extend(found, memory[start : min(place, start + PIECE)])
    return AnnotationTable(path, memory, about) if found == columns_sum else None


def id_hash(clip_id: str) -> int:
    """Return the number that a clip is found by."""
    return int.from_bytes(hashlib.blake2b(clip_id.encode(errors=ODD), digest_size=8).digest(), "little")
