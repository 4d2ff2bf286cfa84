"""Which T frames of a clip a view takes: out of equal segments, out of the annotated frames, or at a fixed rate."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.schema import share_views

Sampling = Literal["segments", "annotated", "rate"]
SAMPLINGS: tuple[Sampling, ...] = ("segments", "annotated", "rate")


def segment_frames(start: int, stop: int, places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one frame of each of len(places) equal segments of [start, stop), at that place in [0, 1) of it."""
    num_segments = len(places)
    frames = start + (np.arange(num_segments) + places) * (stop - start) / num_segments
    return np.floor(frames).astype(np.int64).clip(start, max(start, stop - 1))


def strided_frames(start: int, stop: int, num_frames: int, stride: float, place: float) -> NDArray[np.int64]:
    """Return T frames of [start, stop), each `stride` frames after the one before.

    Args:
        start: first frame of the span.
        stop: end of the span.
        num_frames: T.
        stride: source frames per sampled frame; need not be whole.
        place: where the window of T · stride frames lies, from 0, at the span's start, to 1, at its end. A window
            longer than the span begins where the span does, and repeats the span's last frame from its end on.
    """
    first = start + place * max(0.0, stop - start - num_frames * stride)
    frames: NDArray[np.int64] = np.floor(first + np.arange(num_frames) * stride + 1e-9).astype(np.int64)
    return frames.clip(start, max(start, stop - 1))


def rate_of_view(view_number: int, num_views: int, num_rates: int) -> tuple[int, float]:
    """Return which of several rates a view has, and where in the span its window lies where it is not augmented.

    V views share the rates as `share_views` says, the middle rate (of an even number the lower one) first, so that
    view 0 has it, then the others in ascending order. The windows of one rate are spread evenly from the span's start
    to its end; a single one lies in the middle. View numbers from V on, which only training knows, go round.
    """
    counts = share_views(num_views, num_rates)
    middle = (num_rates - 1) // 2
    number = view_number % num_views
    for rate in (middle, *(rate for rate in range(num_rates) if rate != middle)):
        if number < counts[rate]:
            return rate, 0.5 if counts[rate] == 1 else number / (counts[rate] - 1)
        number -= counts[rate]
    raise AssertionError(f"view {view_number} of {num_views} has none of {num_rates} rates")
