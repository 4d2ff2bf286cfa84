"""The table of a cache's clips: their ids, and the segment and camera of each.

A segment is a stretch of time that one or several cameras saw, each in a clip of its own; it belongs to a part of a
protocol whole. Where no clip names one, each clip is its own segment, and nothing but ids is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError

IDS, SEGMENTS, CAMERAS = "ids", "segments", "cameras"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTable:
    """n clips, in row order.

    Args:
        ids: of the clips, each another.
        segments: the segment of each clip; its id where it is its own.
        cameras: the camera of each clip, "" where that is not said.
    """

    ids: list[str]
    segments: list[str]
    cameras: list[str]

    @classmethod
    def of(cls, arrays: Mapping[str, Sequence[str]]) -> Self:
        """Return the table of stored arrays, of which segments and cameras may be absent or hold "" for none.

        Raises:
            InputError: segments or cameras are not one printable text a clip.
        """
        ids = list(arrays[IDS])
        for name in (SEGMENTS, CAMERAS):
            texts = arrays.get(name, ids)
            if len(texts) != len(ids):
                raise InputError(f"{len(texts)} {name} of {len(ids)} clips; expected one a clip")
            bad = next((n for n, text in enumerate(texts) if not isinstance(text, str) or not text.isprintable()), None)
            if bad is not None:
                raise InputError(
                    f"clip {ids[bad]!r} is of the {name[:-1]} {texts[bad]!r:.200}; expected printable text"
                )
        segments = [own or clip for own, clip in zip(arrays.get(SEGMENTS, ids), ids, strict=True)]
        return cls(ids=ids, segments=segments, cameras=list(arrays.get(CAMERAS, [""] * len(ids))))

    def arrays(self) -> dict[str, list[str]]:
        """Return what is stored, by name."""
        stored = {IDS: self.ids}
        if self.segments != self.ids:
            stored[SEGMENTS] = self.segments
        if any(self.cameras):
            stored[CAMERAS] = self.cameras
        return stored

    def segment_numbers(self) -> NDArray[np.int64]:
        """Return (n,) a number for each clip's segment, in the order of their first clips."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(name, len(numbers)) for name in self.segments], np.int64)
