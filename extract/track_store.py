"""Tracks of many clips, kept in a temporary file: memory holds a small entry a clip, whatever its length."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import numpy as np

from ifcar.extract.tracks import Tracks

_FRAME_BYTES, _COORDINATE_BYTES = 8, 4


class TrackStore:
    """Write once, read in any order, also from forked worker processes.

    The file has no name, so it is gone with its last user, however that ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="ifcar-tracks-", buffering=0)  # noqa: SIM115  (open as long as the store)
        self._places: dict[str, tuple[int, int, int]] = {}
        self._end = 0

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, clip_id: str, tracks: Tracks) -> None:
        """Store a clip's tracks."""
        boxes = np.ascontiguousarray(tracks.boxes, np.float32)
        parts = (tracks.frames.astype(np.int64), boxes, tracks.categories.astype(np.uint8))
        content = b"".join(part.tobytes() for part in parts)
        self._file.write(content)
        self._places[clip_id] = (self._end, len(tracks.frames), boxes.shape[1])
        self._end += len(content)

    def num_frames(self, clip_id: str) -> int:
        """Return how many frames of a clip are annotated."""
        return self._places[clip_id][1]

    def num_tracks(self, clip_id: str) -> int:
        """Return how many tracks a clip has."""
        return self._places[clip_id][2]

    def get(self, clip_id: str) -> Tracks:
        """Read a clip's tracks. Raises KeyError for an unknown clip."""
        start, num_frames, num_tracks = self._places[clip_id]
        frame_bytes, box_bytes = _FRAME_BYTES * num_frames, 4 * _COORDINATE_BYTES * num_frames * num_tracks
        content = os.pread(self._file.fileno(), frame_bytes + box_bytes + num_tracks, start)
        return Tracks(
            frames=np.frombuffer(content, np.int64, num_frames),
            boxes=np.frombuffer(content, np.float32, 4 * num_frames * num_tracks, frame_bytes).reshape(
                num_frames, num_tracks, 4
            ),
            categories=np.frombuffer(content, np.uint8, num_tracks, frame_bytes + box_bytes),
        )
