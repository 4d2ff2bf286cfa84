"""What every reader of pictures offers, be it of a video file or of a folder of frames."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from ifcar.extract.frame_index import FrameIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video holds.

    Args:
        num_frames: frames, counted; for a folder the highest frame number.
        fps: average frames per second, or None when unknown (always for a folder).
        width: frame width in pixels, as shown.
        height: frame height in pixels, as shown.
        seconds: (num_frames,) when each frame is shown, from the first, of a video of variable frame rate; else None.
        index: where a video file's frames lie, for `open_source`; None where they have to be counted.
    """

    num_frames: int
    fps: float | None
    width: int
    height: int
    seconds: tuple[float, ...] | None = None
    index: FrameIndex | None = field(default=None, compare=False, repr=False)


class PictureSource(Protocol):
    """A source of pictures while it is open. Each method raises DecodeError where the source cannot be read."""

    path: Path

    def info(self) -> VideoInfo:
        """Return the size, length and rate; counting a video's frames walks the whole file."""

    def size(self) -> tuple[int, int]:
        """Return the (width, height) in pixels, as shown, without counting frames."""

    def pictures(self, wanted: Sequence[int]) -> Generator[tuple[int, Image.Image]]:
        """Yield (number, RGB picture, as shown) for ascending frame numbers from 0."""
