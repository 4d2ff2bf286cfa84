"""The cached view behind each test clip: its boxes, its number of instances, and its frames where they are at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.cache.joined import JoinedReader
from ifcar.cache.open import open_cache
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Category, Status
from ifcar.errors import IfcarError, InputError
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.feed.batches import read_batch
from ifcar.pipelines.feed.subjects import ask_about, slot_order
from ifcar.pipelines.pictures.clips import find_sources
from ifcar.pipelines.runs.data import RunData
from ifcar.pipelines.runs.recipe import read_recipe


@dataclass(frozen=True, kw_only=True)
class CachedViews:
    """One view a clip: the first that is extracted and not augmented.

    Args:
        reader: the open cache.
        rows: row of a clip or instance, by its id; those that are not extracted are not in it.
        slots: slot of an instance, by its id.
        sources: video or folder of frames, by the same ids; empty when there are no pixels.
        without_pixels: why there are none; empty when there are.
        stream: of a join, whose cache this is; empty of a cache by itself.
    """

    reader: CacheReader
    rows: dict[str, int]
    slots: dict[str, int]
    sources: dict[str, Path]
    without_pixels: str = ""
    stream: str = ""

    def batch(self, arrays: Sequence[str], ids: Sequence[str]) -> InstanceBatch:
        """Read these arrays of these clips, or instances, as heads see them: an instance's slot comes first."""
        rows = np.array([self.rows[name] for name in ids], np.int64)
        batch = read_batch(self.reader, arrays, rows)
        slots = [self.slots[name] for name in ids if name in self.slots]
        if len(slots) < len(ids):
            return batch
        order = slot_order(np.array(slots), self.reader.read_rows("boxes", rows))
        return ask_about(torch.from_numpy(order), batch, self.reader.spec)

    def num_instances(self, clip_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) how many slots of each clip hold an instance in at least one frame; −1 for a clip without row."""
        return self._counted(clip_ids, "categories", lambda own: (own != Category.EMPTY).any(axis=1).sum(axis=1))

    def num_frames(self, clip_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return (n,) frames of the video from a view's first sampled one to its last; −1 for a clip without row."""
        return self._counted(clip_ids, "frame_indices", lambda own: own.max(axis=1) - own.min(axis=1) + 1)

    def _counted(
        self, clip_ids: Sequence[str], array: str, count: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> NDArray[np.int64]:
        """Return (n,) what is counted in an array of each clip's row; −1 for a clip without row."""
        rows = np.array([self.rows.get(clip_id, -1) for clip_id in clip_ids], np.int64)
        counts = np.full(len(rows), -1, np.int64)
        counts[rows >= 0] = count(self.reader.read_rows(array, rows[rows >= 0]))
        return counts


def open_views(
    paths: Sequence[Path], fingerprint: str, clip_ids: Sequence[str], data_root: Path | None
) -> CachedViews | str:
    """Open the first of these caches that the runs were trained from, and find the videos.

    Args:
        paths: where it may be.
        fingerprint: what it must hold.
        clip_ids: the clips or instances that are asked for.
        data_root: the dataset's folder, when it is not at its default place.

    Returns:
        The views, or one sentence that says why there are none.
    """
    reasons = []
    for path in paths:
        try:
            reader = open_cache(path)
        except (IfcarError, OSError) as error:
            reasons.append(str(error))
            continue
        if reader.fingerprint == fingerprint and "streams" in reader.identity:
            reader.close()
            return f"{path} joins several caches"
        if reader.fingerprint == fingerprint:
            return _views(reader, clip_ids, data_root)
        reasons.append(
            f"{path} has the fingerprint {reader.fingerprint[:12]}, but the runs were trained from {fingerprint[:12]}"
        )
        reader.close()
    return "; ".join(reasons) or "the runs name no cache"


def _views(reader: CacheReader, clip_ids: Sequence[str], data_root: Path | None) -> CachedViews:
    plain = (reader.status() == Status.DONE) & ~reader.table("augmented")
    plain = plain.reshape(reader.num_clips, reader.rows_per_clip)
    places: dict[str, tuple[int, int | None]] = _instances(reader)
    places |= {clip_id: (number, None) for number, clip_id in enumerate(reader.clip_ids)}
    found = {name: places[name] for name in clip_ids if name in places and plain[places[name][0]].any()}
    rows = {name: clip * reader.rows_per_clip + int(plain[clip].argmax()) for name, (clip, _) in found.items()}
    of_clips, without_pixels = _sources(reader, data_root)
    sources = {n: of_clips[c] for n, (clip, _) in found.items() if (c := reader.clip_ids[clip]) in of_clips}
    slots = {name: slot for name, (_, slot) in found.items() if slot is not None}
    return CachedViews(reader=reader, rows=rows, slots=slots, sources=sources, without_pixels=without_pixels)


def stream_views(join: JoinedReader, stream: str, segments: Sequence[str], data_root: Path | None) -> CachedViews:
    """Return of each segment of a join the first finished view by the first camera of a stream, from its own cache."""
    number_of = {segment: number for number, segment in enumerate(join.clip_ids)}
    done = (join.status() == Status.DONE).reshape(join.num_clips, join.rows_per_clip)
    known = [segment for segment in segments if segment in number_of and done[number_of[segment]].any()]
    joined = [number_of[own] * join.rows_per_clip + int(done[number_of[own]].argmax()) for own in known]
    reader, rows = join.stream_rows(stream, np.array(joined, np.int64))
    of_clips, without_pixels = _sources(reader, data_root)
    clips = {own: reader.clip_ids[row // reader.rows_per_clip] for own, row in zip(known, rows.tolist(), strict=True)}
    return CachedViews(
        reader=reader,
        rows=dict(zip(known, rows.tolist(), strict=True)),
        slots={},
        sources={own: of_clips[clip] for own, clip in clips.items() if clip in of_clips},
        without_pixels=without_pixels,
        stream=stream,
    )


def reads_pixels(run: Path, data: RunData) -> bool:
    """Return whether the features behind a run, or one stream of it, are of pictures; sound has none to draw."""
    try:
        return read_recipe(run, data).backbone.reads == "pixels"
    except IfcarError:  # of a backbone of other versions, or of none that is known here
        return True


def _sources(reader: CacheReader, data_root: Path | None) -> tuple[dict[str, Path], str]:
    """Return the video of each clip, or why there are none. Raises InputError where the named folder is not usable."""
    try:
        return find_sources(reader, data_root), ""
    except InputError as error:
        if data_root is not None:
            raise
        return {}, str(error)
    except IfcarError as error:
        return {}, str(error)


def _instances(reader: CacheReader) -> dict[str, tuple[int, int | None]]:
    """Return clip number and slot of every instance with labels, by its id."""
    places: dict[str, tuple[int, int | None]] = {}
    for protocol in map(reader.protocol, reader.protocol_names()):
        for ids in (space.instance_ids for space in protocol.spaces if space.instance_ids is not None):
            places |= {str(ids[clip, slot]): (int(clip), int(slot)) for clip, slot in np.argwhere(ids != "")}
    return places
