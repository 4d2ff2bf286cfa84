"""A cache's rows and protocols by segment, of the cameras that a stream takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Status
from ifcar.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """One stream of a join.

    Args:
        cache: its cache.
        cameras: of the clips that are taken; empty: all.
        shuffled: whether it shows, at each segment, one of another recording: a control, see `ifcar.cache.shuffled`.
            Labels stay the segment's, so that what such a stream answers by itself means nothing.
    """

    cache: Path
    cameras: tuple[str, ...] = ()
    shuffled: bool = False


def rows_by_segment(reader: CacheReader, stream: Stream) -> dict[str, list[int]]:
    """Return the finished plain rows of each segment, camera after camera.

    Raises:
        InputError: no clip is of a camera that the stream takes.
    """
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


def segment_tables(reader: CacheReader, stream: Stream, segments: Sequence[str]) -> dict[str, ProtocolTable]:
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
                if (what := differing_part(table, clips[segment][0], table, other)) is not None:
                    ids = " and ".join(reader.clip_ids[c] for c in (clips[segment][0], other))
                    raise InputError(f"{reader.path}: {ids} are one segment but differ in {what} of protocol {name!r}")
        spaces = tuple(space for space in table.spaces if space.over == "clip")
        if spaces:
            found[name] = replace(table, spaces=spaces).of_clips(firsts)
    return found


def differing_part(one: ProtocolTable, place: int, two: ProtocolTable, other: int) -> str | None:
    """Return in what a clip of one table differs from a clip of another; None: in nothing."""
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
