"""The clock of a source: which frame is shown at which second.

Seconds count from second 0 of the source's clock. MP4, Matroska, WebM and AVI have a zero of their own; the clock of
other containers (MPEG-TS and its kin) begins where the first of their streams does, sound or pictures. A frame is shown
from its own time stamp to the next frame's; nothing is shown before the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifcar.errors import InputError
from ifcar.extract.sampling import strided_frames

_EVEN_SEC = 1e-3  # Matroska rounds or cuts time stamps to milliseconds
_EVEN_SHARE = 0.25  # of a frame, the most that a frame of an even pace is off, where frames are that short
_ROUNDING_SEC = 1.1e-3  # FLV rounds two numbers to milliseconds and adds them up
_NOISE = 1e-6  # frames


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameClock:
    """When each frame of a source is shown.

    Args:
        num_frames: F.
        fps: mean frames per second, or None where no time is known (a folder of frames).
        first_sec: when the first frame is shown.
        seconds: (F,) when each frame is shown, ascending; None at an even pace of `fps` from `first_sec`.
    """

    num_frames: int
    fps: float | None
    first_sec: float = 0.0
    seconds: tuple[float, ...] | None = None

    @classmethod
    def of_stamps(cls, seconds: NDArray[np.float64], stated: Iterable[Fraction | None]) -> Self:
        """Return the clock of frames with these time stamps.

        A rate that the file states counts only where it agrees with every time stamp but for their rounding.

        Args:
            seconds: (F,) ascending, F ≥ 1.
            stated: frames per second, as a file's header or its reader's guess says.
        """
        num_frames, first_sec = len(seconds), float(seconds[0])
        rates = [float(rate) for rate in stated if rate]
        if seconds[-1] > seconds[0]:
            mean = (num_frames - 1) / float(seconds[-1] - seconds[0])
            rates += [float(round(mean)), round(mean * 1.001) / 1.001]
            rates = [rate for rate in rates if rate and _is_even(seconds, rate, _EVEN_SEC)]
            if not rates and not _is_even(seconds, mean, _NOISE / mean):
                stamps = tuple(seconds.tolist())
                return cls(num_frames=num_frames, fps=mean, first_sec=first_sec, seconds=stamps)
            rates.append(mean)
        return cls(num_frames=num_frames, fps=rates[0] if rates else None, first_sec=first_sec)

    def rate(self) -> float:
        """Return the mean frames per second. Raises InputError where no time is known."""
        if self.fps is None:
            raise InputError(
                "the source states no frames per second, which a span or a rate in seconds (--sampling-fps) needs"
            )
        return self.fps

    def edges(self) -> NDArray[np.float64]:
        """Return (F + 1,) when each frame begins and the last one ends, which is taken to be as long as the mean.

        Raises:
            InputError: no time is known.
        """
        if self.seconds is None:
            return self.first_sec + np.arange(self.num_frames + 1) / self.rate()
        return np.array([*self.seconds, self.seconds[-1] + 1 / self.rate()])

    def place_at(self, seconds: ArrayLike) -> NDArray[np.float64]:
        """Return the frame that is shown at each second, with the part of it that has passed.

        2.5 is the middle of frame 2. Less than 0, or 0 where the pace varies, is before the first frame, `num_frames`
        and more after the last.

        Raises:
            InputError: no time is known.
        """
        if self.seconds is None:
            return (np.asarray(seconds, np.float64) - self.first_sec) * self.rate()
        frames = np.arange(self.num_frames + 1)
        places: NDArray[np.float64] = np.interp(np.asarray(seconds, np.float64), self.edges(), frames)
        return places

    def seconds_of(self, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return when frames are shown."""
        return self.edges()[frames]

    def frame_at(self, second: float) -> int:
        """Return the frame that is shown at a second; −1 before the first, `num_frames` after the last."""
        if second + self._rounding() < self.first_sec - _NOISE / self.rate():
            return -1
        return math.floor(min(self.num_frames, float(self.place_at(second + self._rounding())) + _NOISE))

    def first_from(self, second: float) -> int:
        """Return the first frame that begins at this second or later; `num_frames` where none does."""
        place = float(self.place_at(second - self._rounding()))
        return math.ceil(max(0.0, min(self.num_frames, place - _NOISE)))

    def strided(self, start: int, stop: int, sampling_fps: float, num_frames: int, place: float) -> NDArray[np.int64]:
        """Return T frames of [start, stop), 1 / `sampling_fps` seconds after one another; see `strided_frames`."""
        if self.seconds is None:
            return strided_frames(start, stop, num_frames, self.rate() / sampling_fps, place)
        edges = self.edges()
        length_sec = float(edges[stop] - edges[start])
        first_sec = edges[start] + place * max(0.0, length_sec - num_frames / sampling_fps)
        wanted = first_sec + np.arange(num_frames) / sampling_fps + self._rounding()
        frames: NDArray[np.int64] = np.floor(self.place_at(wanted) + _NOISE).astype(np.int64)
        return frames.clip(start, max(start, stop - 1))

    def _rounding(self) -> float:
        """Return by how many seconds the time of a frame may be off: none are at an even pace from second 0."""
        return 0.0 if self.seconds is None and self.first_sec == 0 else _ROUNDING_SEC


def _is_even(seconds: NDArray[np.float64], rate: float, most_sec: float) -> bool:
    """Return whether no frame is off this pace by more than so many seconds, and by less than part of a frame."""
    off = np.abs(seconds - seconds[0] - np.arange(len(seconds)) / rate).max()
    return bool(off <= min(most_sec, _EVEN_SHARE / rate))
