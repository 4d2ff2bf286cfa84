"""Which T frames of a clip a view takes: out of equal segments, out of the annotated frames, or at a fixed rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.schema import share_views


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


def plain_places(count: int) -> list[float]:
    """Return where so many plain views lie, from 0 to 1: the middles of equal parts, from the middle outwards.

    One view lies at 0.5, two at 0.25 and 0.75, three at 0.5, 1/6 and 5/6.
    """
    places = (np.arange(count) + 0.5) / count
    order = np.argsort(np.abs(places - 0.5).round(9), kind="stable")
    return [float(place) for place in places[order]]


def place_of_view(view_number: int, num_views: int, num_rates: int) -> tuple[int, float]:
    """Return which of several rates a plain view has, and its place.

    V views share the rates as `share_views` says, the middle rate (of an even number the lower one) first, so that
    view 0 has it, then the others in ascending order. Those of one rate lie at `plain_places`.
    """
    counts = share_views(num_views, num_rates)
    middle = (num_rates - 1) // 2
    number = view_number
    for rate in (middle, *(rate for rate in range(num_rates) if rate != middle)):
        if number < counts[rate]:
            return rate, plain_places(counts[rate])[number]
        number -= counts[rate]
    raise AssertionError(f"view {view_number} of {num_views} has none of {num_rates} rates")
