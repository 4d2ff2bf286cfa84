"""Several caches read as one, joined by the names of their clips' segments.

A join is a JSON file: of each stream its cache, what that holds, and the cameras that are taken; and the segments that
all streams have. A row of the join is a segment and one finished plain row of each stream, every choice a view:
training draws one, and scores are averaged over all. Opened for some streams, it never touches the others' caches.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.arrays import BOOKKEEPING, CacheSpec
from ifcar.cache.clips import ClipTable
from ifcar.cache.commits import FailedRow
from ifcar.cache.durable import write_atomic
from ifcar.cache.manifest import MAX_VIEWS, Manifest, new_manifest
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Provenance, Status
from ifcar.cache.stored_spec import FORMAT_VERSION, parse_spec, spec_content
from ifcar.cache.streams import joined_spec, stream_of
from ifcar.cache.zarr_reader import ZarrReader
from ifcar.errors import CacheMismatchError, InputError, MissingDataError, nearest
from ifcar.text_files import read_text

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """One stream of a join.

    Args:
        cache: its cache.
        cameras: of the clips that are taken; empty: all.
    """

    cache: Path
    cameras: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """What was written.

    Args:
        path: of the join.
        num_segments: that all streams have.
        dropped: of each stream, how many of its segments another one lacks.
    """

    path: Path
    num_segments: int
    dropped: Mapping[str, int]


def join_caches(streams: Mapping[str, Stream], out: Path) -> Joined:
    """Write a join.

    Raises:
        InputError: no stream, a name that is none, a camera that no clip of a cache has, no common segment, or caches
            that disagree about a split, a group or a label.
        MissingDataError: no such cache.
    """
    if len(streams) < 1:
        raise InputError("a join needs streams, as ego=caches/ego.zarr")
    for name, stream in streams.items():
        if isinstance(place_of(stream.cache), Address):
            raise InputError(
                f"stream {name!r}: {place_of(stream.cache)} is an address; a join takes local caches: pull it"
            )
        if not stream.cache.is_dir():
            what = "is no .zarr cache, which a join takes" if stream.cache.exists() else "is not there"
            raise MissingDataError(f"stream {name!r}: {stream.cache} {what}")
    readers = {name: ZarrReader(stream.cache) for name, stream in streams.items()}
    rows = {name: _rows_by_segment(readers[name], stream) for name, stream in streams.items()}
    first = next(iter(rows.values()))
    segments = [name for name in first if all(name in own for own in rows.values())]
    if not segments:
        raise InputError(f"the caches of {', '.join(streams)} have no segment in common; are they of one data set?")
    tables = {name: _tables(readers[name], stream, segments) for name, stream in streams.items()}
    _check_alike(tables, segments)
    content = {
        "join_version": _FORMAT,
        "streams": {
            name: {
                "cache": os.path.relpath(stream.cache.absolute(), out.absolute().parent),
                "cameras": list(stream.cameras),
                "fingerprint": readers[name].fingerprint,
                "status": _status_digest(readers[name]),
                "spec": spec_content(readers[name].spec, FORMAT_VERSION),
                "identity": readers[name].identity,
                "most_rows": max(len(rows[name][segment]) for segment in segments),
            }
            for name, stream in streams.items()
        },
        "spaces": _sizes(tables),
        "multi": _multi(tables),
        "segments": segments,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, (json.dumps(content, ensure_ascii=False) + "\n").encode())
    JoinedReader(out).close()
    for reader in readers.values():
        reader.close()
    return Joined(
        path=out,
        num_segments=len(segments),
        dropped={name: len(own) - len(segments) for name, own in rows.items()},
    )


class JoinedReader(CacheReader):
    """A join, read as one cache whose clips are segments.

    Args:
        path: of the file.
        streams: those to open; None: all.

    Raises:
        MissingDataError: a cache is not where the join says.
        InputError: the file is no join, or has no such stream.
        CacheMismatchError: a cache is another than the one that was joined.
    """

    def __init__(self, path: Path, streams: Sequence[str] | None = None) -> None:
        content = _read(path)
        known = content["streams"]
        for name in streams or ():
            if name not in known:
                raise InputError(f"{path}: no stream {name!r}{nearest(name, known)}; it has {', '.join(known)}")
        self._names = tuple(known) if streams is None else tuple(streams)
        segments = list(content["segments"])
        manifest = _manifest(content, segments)
        super().__init__(path, manifest, ClipTable(ids=segments, segments=segments, cameras=[""] * len(segments)))
        self._readers = {name: _open(path, name, known[name]) for name in self._names}
        self._streams = {name: Stream(cache=Path(), cameras=tuple(known[name]["cameras"])) for name in self._names}
        self._place(content)

    def _place(self, content: Mapping[str, Any]) -> None:
        """Find the row of each stream behind every row of the join."""
        found = {name: _rows_by_segment(self._readers[name], self._streams[name]) for name in self._names}
        most = [content["streams"][name]["most_rows"] for name in self._names]
        self.num_views = self.rows_per_clip = int(np.prod(most))
        self.num_rows = self.num_clips * self.num_views
        self._places = {name: np.full(self.num_rows, -1, np.int64) for name in self._names}
        for number, segment in enumerate(self.clip_ids):
            choices = itertools.product(*(found[name].get(segment, ()) for name in self._names))
            for view, chosen in enumerate(choices):
                for name, row in zip(self._names, chosen, strict=True):
                    self._places[name][number * self.num_views + view] = row
        self._there = next(iter(self._places.values())) >= 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.path, self._names))

    def protocol_names(self) -> list[str]:
        """Return the names of the protocols that all streams have."""
        names = [set(reader.protocol_names()) for reader in self._readers.values()]
        return sorted(set.intersection(*names))

    def failures(self) -> list[FailedRow]:
        """Return nothing: what failed is in no join."""
        return []

    def committed_rows(self) -> NDArray[np.bool_]:
        """Return (R,) True: a join has finished rows only."""
        return np.ones(self.num_rows, np.bool_)

    def close(self) -> None:
        """Close the caches."""
        for reader in self._readers.values():
            reader.close()

    def advise(self, name: str, rows: NDArray[np.int64]) -> None:
        """Tell the cache of the array's stream."""
        reader, own = self._at(name)
        reader.advise(own, self._own_rows(name, rows))

    def _at(self, name: str) -> tuple[CacheReader, str]:
        stream, own = stream_of(name)
        if stream and stream not in self._readers:
            raise CacheMismatchError(f"{self.path}: opened for {', '.join(self._names)}, not for {stream}")
        return self._readers[stream or self._names[0]], own

    def _own_rows(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        own: NDArray[np.int64] = self._places[stream_of(name)[0] or self._names[0]][rows]
        return own

    def _fill(self, name: str, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        reader, own = self._at(name)
        reader.read_rows(own, self._own_rows(name, rows), out)

    def _load_table(self, name: str) -> NDArray[Any]:
        if name == "status":
            return np.where(self._there, Status.DONE, Status.NOT_WANTED).astype(np.uint8)
        reader, own = self._at(name)
        table = reader.table(own)[self._own_rows(name, np.arange(self.num_rows))]
        table[~self._there] = self.spec.array(name).empty
        return table

    def _load_protocol(self, name: str) -> ProtocolTable:
        stream = self._names[0]
        return _tables(self._readers[stream], self._streams[stream], self.clip_ids)[name]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
        if content["join_version"] != _FORMAT:
            raise InputError(f"{path}: a join of version {content['join_version']!r}; this ifcar reads {_FORMAT}")
        if not content["streams"] or not content["segments"]:
            raise ValueError("no streams or no segments")
        return dict(content)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a join of caches ({error}); make it with `ifcar cache join`") from error


def _manifest(content: Mapping[str, Any], segments: Sequence[str]) -> Manifest:
    """Return what the join is, as a cache's root attributes would say it."""
    streams = content["streams"]
    specs = {name: parse_spec(own["spec"]) for name, own in streams.items()}
    first = next(iter(specs.values()))
    spec = joined_spec(specs, content["spaces"], content["multi"])
    spec = CacheSpec(sizes={**spec.sizes, "T": first.num_frames}, arrays=(*spec.arrays, *BOOKKEEPING))
    views = int(np.prod([own["most_rows"] for own in streams.values()]))
    if views > MAX_VIEWS:
        raise InputError(f"{views} combinations of cameras and views a segment; a join takes {MAX_VIEWS}: name fewer")
    joined = {name: {"fingerprint": own["fingerprint"], "cameras": own["cameras"]} for name, own in streams.items()}
    identity = {**next(iter(streams.values()))["identity"], "streams": joined}
    return new_manifest(spec, Provenance(identity=identity), segments, views)


def _open(path: Path, name: str, stream: Mapping[str, Any]) -> CacheReader:
    cache = path.parent / stream["cache"]
    if not cache.is_dir():
        raise MissingDataError(f"{path}: stream {name!r}: there is no cache at {cache}; join its caches anew")
    reader = ZarrReader(cache)
    if reader.fingerprint != stream["fingerprint"]:
        raise CacheMismatchError(f"{path}: stream {name!r}: {cache} is another cache than was joined; join anew")
    if _status_digest(reader) != stream["status"]:
        raise CacheMismatchError(f"{path}: stream {name!r}: rows of {cache} finished or failed since; join anew")
    return reader


def _status_digest(reader: CacheReader) -> str:
    """Return the SHA-256 of which rows are finished: what a join's rows are numbered by."""
    return hashlib.sha256(reader.status().tobytes()).hexdigest()


def _rows_by_segment(reader: CacheReader, stream: Stream) -> dict[str, list[int]]:
    """Return the finished plain rows of each segment, camera after camera."""
    unknown = [camera for camera in stream.cameras if camera not in reader.clips.cameras]
    if unknown:
        known = ", ".join(sorted({*reader.clips.cameras} - {""})) or "none"
        raise InputError(f"{reader.path}: no clip is of the camera {unknown[0]!r}; cameras there: {known}")
    done, found = reader.status() == Status.DONE, dict[str, list[int]]()
    for clip in _clips_of(reader, stream):
        start = clip * reader.rows_per_clip
        rows = [row for row in range(start, start + reader.num_views) if done[row]]
        if rows:
            found.setdefault(reader.clips.segments[clip], []).extend(rows)
    return found


def _clips_of(reader: CacheReader, stream: Stream) -> list[int]:
    cameras = reader.clips.cameras
    return [clip for clip in range(reader.num_clips) if not stream.cameras or cameras[clip] in stream.cameras]


def _tables(reader: CacheReader, stream: Stream, segments: Sequence[str]) -> dict[str, ProtocolTable]:
    """Return the protocols of a cache over segments, each as its first clip has it.

    Raises:
        InputError: two cameras of a segment have another split, group or label.
    """
    clips: dict[str, list[int]] = {}
    for clip in _clips_of(reader, stream):
        clips.setdefault(reader.clips.segments[clip], []).append(clip)
    firsts = np.array([clips[segment][0] for segment in segments])
    found = {}
    for name in reader.protocol_names():
        table = reader.protocol(name)
        for segment in segments:
            for other in clips[segment][1:]:
                if (what := _difference(table, clips[segment][0], table, other)) is not None:
                    ids = " and ".join(reader.clip_ids[c] for c in (clips[segment][0], other))
                    raise InputError(f"{reader.path}: {ids} are one segment but differ in {what} of protocol {name!r}")
        spaces = tuple(replace(s, targets=s.targets[firsts]) for s in table.spaces if s.over == "clip")
        if spaces:
            found[name] = replace(table, spaces=spaces, split=table.split[firsts], groups=table.groups[firsts])
    return found


def _check_alike(tables: Mapping[str, Mapping[str, ProtocolTable]], segments: Sequence[str]) -> None:
    first, *others = tables
    for other in others:
        for name in tables[first].keys() & tables[other].keys():
            one, two = tables[first][name], tables[other][name]
            if [_facts(s) for s in one.spaces] != [_facts(s) for s in two.spaces]:
                raise InputError(f"streams {first!r} and {other!r} have other classes in protocol {name!r}")
            for place, segment in enumerate(segments):
                if (what := _difference(one, place, two, place)) is not None:
                    raise InputError(
                        f"streams {first!r} and {other!r} differ in {what} of segment {segment!r}, protocol {name!r}"
                    )


def _difference(one: ProtocolTable, place: int, two: ProtocolTable, other: int) -> str | None:
    if one.split[place] != two.split[other]:
        return "the split"
    groups = [table.groups[k] for table, k in ((one, place), (two, other))]
    if (groups[0] < 0) != (groups[1] < 0) or (
        groups[0] >= 0 and one.group_names[groups[0]] != two.group_names[groups[1]]
    ):
        return "the group"
    for mine, yours in zip(one.spaces, two.spaces, strict=True):
        if mine.over == "clip" and not np.array_equal(mine.targets[place], yours.targets[other]):
            return f"the labels {mine.name!r}"
    return None


def _facts(space: LabelSpace) -> tuple[Any, ...]:
    return space.name, space.kind, space.classes, space.unlabelled


def _sizes(tables: Mapping[str, Mapping[str, ProtocolTable]]) -> dict[str, int]:
    """Return K of every label space of the first stream's protocols.

    Raises:
        InputError: two protocols have label spaces of one name and other classes.
    """
    sizes: dict[str, int] = {}
    for table in next(iter(tables.values())).values():
        for space in table.spaces:
            if sizes.setdefault(space.name, len(space.classes)) != len(space.classes):
                raise InputError(f"protocol {table.name!r}: its label space {space.name!r} has other classes elsewhere")
    return sizes


def _multi(tables: Mapping[str, Mapping[str, ProtocolTable]]) -> list[str]:
    """Return the names of the label spaces with several labels a clip."""
    spaces = (space for table in next(iter(tables.values())).values() for space in table.spaces)
    return sorted({space.name for space in spaces if space.kind == "multi"})
