"""Caches of the same segments become a join: a file that names them, once they are found to agree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifcar.cache.durable import write_atomic
from ifcar.cache.joined import JOIN_VERSION, JoinedReader, status_digest
from ifcar.cache.parts import open_one
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.segments import Stream, differing_part, rows_by_segment, segment_tables
from ifcar.cache.shuffled import other_recordings
from ifcar.cache.single import check_listing_gives_way, listed
from ifcar.cache.stored_spec import FORMAT_VERSION, spec_content
from ifcar.errors import InputError, MissingDataError


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
        InputError: no stream, a name that is none, a camera that no clip of a cache has, no common segment, caches
            that disagree about a split, a group or a label, a shuffled stream that is the first, or a file in the way.
        MissingDataError: no such cache.
    """
    if len(streams) < 1:
        raise InputError("a join needs streams, as ego=caches/ego.zarr")
    check_listing_gives_way(out, "join_version")
    if next(iter(streams.values())).shuffled:
        raise InputError(f"stream {next(iter(streams))!r} is shuffled; expected the first as it is, others beside it")
    readers = {name: _open(name, stream.cache) for name, stream in streams.items()}
    rows = {name: rows_by_segment(readers[name], stream) for name, stream in streams.items()}
    first = next(iter(rows.values()))
    segments = [name for name in first if all(name in own for own in rows.values())]
    if not segments:
        raise InputError(f"the caches of {', '.join(streams)} have no segment in common; are they of one data set?")
    tables = {name: segment_tables(readers[name], stream, segments) for name, stream in streams.items()}
    _check_alike({f"{name!r} ({stream.cache})": tables[name] for name, stream in streams.items()}, segments)
    lent = other_recordings(next(iter(tables.values())), segments) if any(s.shuffled for s in streams.values()) else []
    content = {
        "join_version": JOIN_VERSION,
        "streams": {
            name: {
                "cache": listed(stream.cache, out),
                "cameras": list(stream.cameras),
                "fingerprint": readers[name].fingerprint,
                "status": status_digest(readers[name]),
                "spec": spec_content(readers[name].spec, FORMAT_VERSION),
                "identity": readers[name].identity,
                "most_rows": max(len(rows[name][segment]) for segment in segments),
                **({"shuffled": lent} if stream.shuffled else {}),
            }
            for name, stream in streams.items()
        },
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


def _open(name: str, cache: Path) -> CacheReader:
    try:
        return open_one(cache)
    except (InputError, MissingDataError) as error:
        raise type(error)(f"stream {name!r}: {error}") from error


def _check_alike(tables: Mapping[str, Mapping[str, ProtocolTable]], segments: Sequence[str]) -> None:
    """Refuse caches that disagree about a protocol; the names are those of streams, with their caches."""
    first, *others = tables
    for other in others:
        for name in tables[first].keys() & tables[other].keys():
            one, two = tables[first][name], tables[other][name]
            if [space.name for space in one.spaces] != [space.name for space in two.spaces]:
                found = " and ".join(", ".join(space.name for space in table.spaces) for table in (one, two))
                raise InputError(f"streams {first} and {other} have other label spaces in protocol {name!r}: {found}")
            for mine, yours in zip(one.spaces, two.spaces, strict=True):
                if _facts(mine) != _facts(yours):
                    raise InputError(
                        f"streams {first} and {other}: label space {mine.name!r} of protocol {name!r} has other "
                        f"classes: {_unlike(mine, yours)}"
                    )
            for place, segment in enumerate(segments):
                if (what := differing_part(one, place, two, place)) is not None:
                    raise InputError(
                        f"streams {first} and {other} differ in {what} of segment {segment!r}, protocol {name!r}"
                    )


def _unlike(one: LabelSpace, two: LabelSpace) -> str:
    """Return the first thing in which two label spaces of a name differ."""
    if len(one.classes) != len(two.classes):
        return f"{len(one.classes)} and {len(two.classes)}"
    pairs = zip(one.classes, two.classes, strict=True)
    differing = next((f"{a!r:.80} and {b!r:.80}" for a, b in pairs if a != b), "")
    return differing or f"{one.kind}, unlabelled {one.unlabelled}, and {two.kind}, unlabelled {two.unlabelled}"


def _facts(space: LabelSpace) -> tuple[Any, ...]:
    return space.name, space.kind, space.classes, space.unlabelled
