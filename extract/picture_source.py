"""What every reader of pictures offers, be it of a video file or of a folder of frames."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.frame_index import FrameIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video holds.

    Args:
        clock: when each frame is shown.
        width: frame width in pixels, as shown.
        height: frame height in pixels, as shown.
        stated_fps: frames per second as a video file's header states, which the clock need not follow, or None.
        index: where a video file's frames lie, for `open_source`; None for a folder.
    """

    clock: FrameClock
    width: int
    height: int
    stated_fps: float | None = field(default=None, compare=False)
    index: FrameIndex | None = field(default=None, compare=False, repr=False)

    @property
    def num_frames(self) -> int:
        """Frames, counted; for a folder the highest frame number."""
        return self.clock.num_frames

    @property
    def fps(self) -> float | None:
        """Mean frames per second, or None when unknown (always for a folder)."""
        return self.clock.fps


class PictureSource(Protocol):
    """A source of pictures while it is open. Each method raises DecodeError where the source cannot be read."""

    path: Path

    def info(self) -> VideoInfo:
        """Return the size, length and rate; counting a video's frames walks the whole file."""

    def size(self) -> tuple[int, int]:
        """Return the (width, height) in pixels, as shown, without counting frames."""

    def pictures(self, wanted: Sequence[int]) -> Generator[tuple[int, Image.Image]]:
        """Yield (number, RGB picture, as shown) for ascending frame numbers from 0."""
