"""Tracks of many clips, kept in a temporary file: memory holds a small entry a clip, whatever its length."""

from __future__ import annotations

import math
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.extract.tracks import Tracks

Carried = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


def carried_by(tracks: Tracks) -> Carried:
    """Return type and shape, without frames and tracks, of what tracks carry beside boxes, by name."""
    return {name: (value.dtype, value.shape[2:]) for name, value in sorted(tracks.values.items())}


def packed(tracks: Tracks) -> bytes:
    """Return tracks as bytes; what they carry beside boxes is compressed with them, for masks are mostly empty."""
    assert tracks.categories.ndim == 1, "tracks are one thing throughout"
    parts: list[NDArray[Any]] = [tracks.frames.astype(np.int64), tracks.boxes.astype(np.float32)]
    parts += [tracks.categories.astype(np.uint8), *(tracks.values[name] for name in sorted(tracks.values))]
    content = b"".join(part.tobytes() for part in parts)
    return zlib.compress(content, 1) if tracks.values else content


def unpacked(content: bytes, num_frames: int, num_tracks: int, carried: Carried) -> Tracks:
    """Return the tracks that `packed` made these bytes of."""
    both = (num_frames, num_tracks)
    stored: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "frames": (np.dtype(np.int64), (num_frames,)),
        "boxes": (np.dtype(np.float32), (*both, 4)),
        "categories": (np.dtype(np.uint8), (num_tracks,)),
    }
    stored |= {name: (dtype, (*both, *shape)) for name, (dtype, shape) in carried.items()}
    sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in stored.values()]
    content = zlib.decompress(content) if carried else content
    found: dict[str, NDArray[Any]] = {}
    place = 0
    for (name, (dtype, shape)), size in zip(stored.items(), sizes, strict=True):
        found[name] = np.frombuffer(content, dtype, math.prod(shape), place).reshape(shape)
        place += size
    own = [found.pop(name) for name in ("frames", "boxes", "categories")]
    return Tracks(frames=own[0], boxes=own[1], categories=own[2], values=found)


class TrackStore:
    """Write once, read in any order, also from forked worker processes.

    The file has no name, so it is gone with its last user, however that ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="ifcar-tracks-", buffering=0)  # noqa: SIM115  (open as long as the store)
        self._places: dict[str, tuple[int, int, int, int]] = {}
        self._carried: Carried = {}
        self._end = 0

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, clip_id: str, tracks: Tracks) -> None:
        """Store a clip's tracks.

        Raises:
            InputError: they carry other values than those of the clips before.
        """
        carried = carried_by(tracks)
        if self._places and carried != self._carried:
            raise InputError(f"clip {clip_id!r}: its tracks carry {carried}; expected {self._carried}, as the others")
        self._carried = carried
        num_frames, num_tracks = tracks.boxes.shape[:2]
        content = packed(tracks)
        self._file.write(content)
        self._places[clip_id] = (self._end, num_frames, num_tracks, len(content))
        self._end += len(content)

    def num_frames(self, clip_id: str) -> int:
        """Return how many frames of a clip are annotated."""
        return self._places[clip_id][1]

    def num_tracks(self, clip_id: str) -> int:
        """Return how many tracks a clip has."""
        return self._places[clip_id][2]

    def get_or_none(self, clip_id: str) -> Tracks:
        """Read a clip's tracks; those of a clip without annotation where there are none."""
        return self.get(clip_id) if clip_id in self else Tracks.none()

    def get(self, clip_id: str) -> Tracks:
        """Read a clip's tracks. Raises KeyError for an unknown clip."""
        start, num_frames, num_tracks, size_bytes = self._places[clip_id]
        content = os.pread(self._file.fileno(), size_bytes, start)
        return unpacked(content, num_frames, num_tracks, self._carried)
