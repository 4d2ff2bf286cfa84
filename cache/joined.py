"""Several caches read as one, joined by the names of their clips' segments.

A join is a JSON file: of each stream its cache, what that holds, and the cameras that are taken; and the segments that
all streams have. A row of the join is a segment and one finished plain row of each stream, every choice a view:
training draws one, and scores are averaged over all. Opened for some streams, it never touches the others' caches.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import BOOKKEEPING, CacheSpec
from ifcar.cache.clips import ClipTable
from ifcar.cache.commits import FailedRow
from ifcar.cache.manifest import MAX_VIEWS, Manifest, new_manifest
from ifcar.cache.parts import open_one
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Provenance, Status
from ifcar.cache.segments import Stream, rows_by_segment, segment_tables
from ifcar.cache.single import open_listed
from ifcar.cache.stored_spec import parse_spec
from ifcar.cache.streams import joined_spec, stream_of, with_spaces
from ifcar.errors import CacheMismatchError, InputError, nearest_of
from ifcar.text_files import read_text

JOIN_VERSION = 1


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
                raise InputError(f"{path}: no stream {name!r}{nearest_of(name, known)}")
        self._names = tuple(known) if streams is None else tuple(streams)
        segments = list(content["segments"])
        manifest = _manifest(content, segments)
        super().__init__(path, manifest, ClipTable(ids=segments, segments=segments, cameras=[""] * len(segments)))
        self._readers = {name: _open(path, name, known[name]) for name in self._names}
        self._streams = {
            name: Stream(cache=Path(), cameras=tuple(known[name]["cameras"]), shuffled="shuffled" in known[name])
            for name in self._names
        }
        self._identities: dict[str, dict[str, Any]] = {name: known[name]["identity"] for name in self._names}
        self._protocols: dict[str, ProtocolTable] = {}
        self._place(content)

    def _place(self, content: Mapping[str, Any]) -> None:
        """Find the row of each stream behind every row of the join."""
        found = {name: rows_by_segment(self._readers[name], self._streams[name]) for name in self._names}
        shown = {name: content["streams"][name].get("shuffled", range(self.num_clips)) for name in self._names}
        most = [content["streams"][name]["most_rows"] for name in self._names]
        self.num_views = self.rows_per_clip = int(np.prod(most))
        self.num_rows = self.num_clips * self.num_views
        self._places = {name: np.full(self.num_rows, -1, np.int64) for name in self._names}
        for number in range(self.num_clips):
            choices = itertools.product(
                *(found[name].get(self.clip_ids[shown[name][number]], ()) for name in self._names)
            )
            for view, chosen in enumerate(choices):
                for name, row in zip(self._names, chosen, strict=True):
                    self._places[name][number * self.num_views + view] = row
        self._there = next(iter(self._places.values())) >= 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.path, self._names))

    def stream_identities(self) -> dict[str, dict[str, Any]]:
        """Return the identity of the cache behind each stream."""
        return dict(self._identities)

    def identity_of(self, stream: str) -> dict[str, Any]:
        """Return the identity of the cache behind a stream."""
        return self._identities[stream]

    def cameras_of(self, stream: str) -> set[str]:
        """Return the named cameras whose clips a stream takes."""
        return {*self._streams[stream].cameras} or self.cameras_behind(stream)

    def cameras_behind(self, stream: str) -> set[str]:
        """Return the named cameras of all clips of a stream's cache."""
        return self._readers[stream].cameras_of(stream)

    def shuffled_streams(self) -> list[str]:
        """Return the streams that show other recordings."""
        return [name for name, stream in self._streams.items() if stream.shuffled]

    def spec_of(self, protocol: str) -> CacheSpec:
        """Return the spec of all streams with the label spaces of a protocol, which are all learned together."""
        spaces = self.protocol(protocol).spaces
        classes = {space.name: len(space.classes) for space in spaces}
        return with_spaces(self.spec, classes, [space.name for space in spaces if space.kind == "multi"])

    def stream_rows(self, stream: str, rows: NDArray[np.int64]) -> tuple[CacheReader, NDArray[np.int64]]:
        """Return the open cache behind a stream, and its rows behind these rows of the join; −1 where there is none."""
        return self._readers[stream], self._places[stream][rows]

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
        if not self._protocols:
            stream = self._names[0]
            self._protocols.update(segment_tables(self._readers[stream], self._streams[stream], self.clip_ids))
        return self._protocols[name]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
        if content["join_version"] != JOIN_VERSION:
            raise InputError(f"{path}: a join of version {content['join_version']!r}; this ifcar reads {JOIN_VERSION}")
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
    # Joins once stated their label spaces, and have fingerprints with them.
    spec = with_spaces(joined_spec(specs), content.get("spaces", {}), content.get("multi", ()))
    spec = CacheSpec(sizes={**spec.sizes, "T": first.num_frames}, arrays=(*spec.arrays, *BOOKKEEPING))
    views = int(np.prod([own["most_rows"] for own in streams.values()]))
    if views > MAX_VIEWS:
        raise InputError(f"{views} combinations of cameras and views a segment; a join takes {MAX_VIEWS}: name fewer")
    joined = {name: {"fingerprint": own["fingerprint"], "cameras": own["cameras"]} for name, own in streams.items()}
    for name, own in streams.items():
        joined[name] |= {"shuffled": own["shuffled"]} if "shuffled" in own else {}
    identity = {**next(iter(streams.values()))["identity"], "streams": joined}
    return new_manifest(spec, Provenance(identity=identity), segments, views)


def _open(path: Path, name: str, stream: Mapping[str, Any]) -> CacheReader:
    reader = open_listed(path, f"stream {name!r}", stream, "join anew", open_one)
    if status_digest(reader) != stream["status"]:
        raise CacheMismatchError(f"{path}: stream {name!r}: rows of {reader.path} finished or failed since; join anew")
    return reader


def status_digest(reader: CacheReader) -> str:
    """Return the SHA-256 of which rows are finished: what a join's rows are numbered by."""
    return hashlib.sha256(reader.status().tobytes()).hexdigest()
