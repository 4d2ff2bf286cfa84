"""Where the frames of a video lie: when each is shown, and at which of them decoding can begin."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The frames of a video whose packets all say when they are shown.

    Args:
        shown_at: when each frame is shown, ascending, in units of the stream's time base.
        starts: ascending numbers of the key frames: decoded from there on, a frame and those shown after it are what
            they are when everything is decoded. Frame 0 counts as one.
    """

    shown_at: tuple[int, ...]
    starts: tuple[int, ...]

    @classmethod
    def of_packets(cls, packets: Sequence[tuple[int | None, bool]]) -> Self | None:
        """Return the index of packets (when shown, is a key frame), or None where they do not tell frames apart."""
        known = sorted((pts, is_key) for pts, is_key in packets if pts is not None)
        shown_at = tuple(pts for pts, _ in known)
        if len(known) < len(packets) or len(set(shown_at)) < len(shown_at):
            return None
        return cls(shown_at, tuple(k for k, (_, is_key) in enumerate(known) if is_key or k == 0))

    def start_for(self, number: int) -> int:
        """Return the last frame, at most `number`, at which decoding can begin."""
        return self.starts[bisect_right(self.starts, number) - 1]

    def number_of(self, pts: int | None) -> int | None:
        """Return the number of the frame that is shown then, or None where there is none."""
        place = len(self.shown_at) if pts is None else bisect_left(self.shown_at, pts)
        return place if place < len(self.shown_at) and self.shown_at[place] == pts else None
