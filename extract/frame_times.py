"""Seconds, frames of the source and annotated frame numbers: which is when.

A source is a video file or a folder of frames; its frames count from 0, and its clock says when each is shown.
Annotated frame numbers count at a rate of their own (`annotation_fps`), or are those of the source's frames (None).
With a rate, they count from a second of that clock (`origin_sec`), as exactly as seconds do; or from the source's first
frame (None), where rates that are nearly equal count as equal.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.tracks import Tracks

_EQUAL_SHARE = 0.05
_EQUAL_FRAMES = 12
_END_SHARE = 0.02  # of a frame, within which a time is that of the source's end
_ROUNDED_SEC = 0.1  # by which a span in seconds may reach past its source's end and be taken as rounded


def frames_per_annotation(video: VideoInfo, annotation_fps: float | None) -> float:
    """Return source frames per annotated frame; 1 where either rate is unknown, and for rates that count as equal.

    Annotations state their rate roughly. Rates count as equal within 5 %, which covers videos of 20 frames and more, as
    long as that is at most 12 frames over the whole source.
    """
    if video.fps is None or annotation_fps is None:
        return 1.0
    share = abs(video.fps / annotation_fps - 1)
    return 1.0 if share <= min(_EQUAL_SHARE, _EQUAL_FRAMES / video.num_frames) else video.fps / annotation_fps


def source_frames(
    video: VideoInfo, annotation_fps: float | None, annotated: NDArray[np.int64], origin_sec: float | None
) -> NDArray[np.int64]:
    """Return the source frame nearest in time to each annotated one; `num_frames` and more lie past the end."""
    frame_numbers: NDArray[np.int64] = np.rint(_places(video, annotation_fps, annotated, origin_sec)).astype(np.int64)
    return frame_numbers


def annotated_frames(
    video: VideoInfo, annotation_fps: float | None, frames: NDArray[np.int64], origin_sec: float | None
) -> NDArray[np.int64]:
    """Return the annotated frame nearest in time to each source frame."""
    clock = clock_of(video, annotation_fps)
    if annotation_fps is None:
        places = frames.astype(np.float64)
    elif origin_sec is None and clock.seconds is None:
        places = frames / frames_per_annotation(video, annotation_fps)
    else:
        places = (clock.seconds_of(frames) - _origin(clock, origin_sec)) * annotation_fps
    frame_numbers: NDArray[np.int64] = np.rint(places).astype(np.int64)
    return frame_numbers


def _places(
    video: VideoInfo, annotation_fps: float | None, annotated: NDArray[np.int64], origin_sec: float | None
) -> NDArray[np.float64]:
    """Return which frame is shown at each annotated one, see `FrameClock.place_at`."""
    clock = clock_of(video, annotation_fps)
    if annotation_fps is None:
        return annotated.astype(np.float64)
    if origin_sec is None and clock.seconds is None:
        return annotated.astype(np.float64) * frames_per_annotation(video, annotation_fps)
    return clock.place_at(annotated / annotation_fps + _origin(clock, origin_sec))


def _origin(clock: FrameClock, origin_sec: float | None) -> float:
    return clock.first_sec if origin_sec is None else origin_sec


def clock_of(video: VideoInfo, annotation_fps: float | None) -> FrameClock:
    """Return the source's clock; a folder of unknown rate counts at `annotation_fps`."""
    return video.clock if video.fps is not None else replace(video.clock, fps=annotation_fps)


def annotated_span(
    tracks: Tracks, video: VideoInfo, annotation_fps: float | None, origin_sec: float | None
) -> tuple[int, int]:
    """Return the source frames [start, stop) that annotations cover, the whole source where there are none.

    Raises:
        InputError: all of them lie past the source's end.
    """
    if not len(tracks.frames):
        return 0, video.num_frames
    inside = source_frames(video, annotation_fps, tracks.frames, origin_sec)
    inside = inside[(inside >= 0) & (inside < video.num_frames)]
    if not len(inside):
        raise InputError(
            f"the first annotated frame is number {tracks.frames[0] + 1}, past the end of a source of "
            f"{video.num_frames} frames; expected annotations of this source, fetch it again or check the numbers"
        )
    return int(inside[0]), int(inside[-1]) + 1


def frames_of_span(span_sec: tuple[float, float], clock: FrameClock) -> tuple[int, int]:
    """Return the source frames [start, stop) that are shown within [start, stop) seconds, at least one.

    A span may begin before the first frame and reach past the source's end.

    Raises:
        InputError: no frame is shown in it, or the source's rate is unknown.
    """
    start, stop = clock.frame_at(span_sec[0]), clock.first_from(span_sec[1])
    if start >= clock.num_frames:
        raise InputError(
            f"the clip begins at {span_sec[0]:g} s, frame {math.floor(clock.place_at(span_sec[0]) + 1e-6)} of a source "
            f"of {clock.num_frames} frames; expected a time within it, fetch the source again or check the times"
        )
    if stop <= 0:
        raise InputError(
            f"the clip ends at {span_sec[1]:g} s, and the source shows its first frame at {clock.first_sec:g} s; "
            "expected seconds of the file's own clock"
        )
    start = max(0, start)
    return start, min(max(stop, start + 1), clock.num_frames)


def past_end(
    span_sec: tuple[float, float] | None,
    tracks: Tracks,
    video: VideoInfo,
    annotation_fps: float | None,
    origin_sec: float | None,
) -> str:
    """Return by how much a clip reaches past its source's end, in words, or an empty text where it does not."""
    if span_sec is not None and span_sec[1] < math.inf:
        clock = clock_of(video, annotation_fps)
        end_sec = float(clock.edges()[-1])
        if span_sec[1] <= end_sec + max(_ROUNDED_SEC, 1 / clock.rate()):
            return ""
        return f"{span_sec[0]:g} to {span_sec[1]:g} s of a source of {end_sec:.4g} s ({video.num_frames} frames)"
    last = tracks.frames[-1:]
    if not (_places(video, annotation_fps, last, origin_sec) >= video.num_frames - _END_SHARE).any():
        return ""
    return (
        f"{len(tracks.frames)} annotated frames up to number {last[0] + 1}{_at_rate(annotation_fps)}, of a source of "
        f"{video.num_frames} frames{_at_rate(video.fps)}"
    )


def _at_rate(fps: float | None) -> str:
    return "" if fps is None else f" at {fps:.4g} a second"
