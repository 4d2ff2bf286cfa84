"""Seconds, frames of the source and annotated frame numbers: which is when.

A source is a video file or a folder of frames; its frames count from 0. Annotated frame numbers count at a rate of
their own (`annotation_fps`), or are those of the source's frames (None).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.tracks import Tracks

_EQUAL_SHARE = 0.05
_EQUAL_FRAMES = 12


def frames_per_annotation(video: VideoInfo, annotation_fps: float | None) -> float:
    """Return source frames per annotated frame; 1 where either rate is unknown, and for rates that count as equal.

    A container states its rate only to within the last frame's duration. Rates count as equal within 5 %, which covers
    videos of 20 frames and more, as long as that is at most 12 frames over the whole source.
    """
    if video.fps is None or annotation_fps is None:
        return 1.0
    share = abs(video.fps / annotation_fps - 1)
    return 1.0 if share <= min(_EQUAL_SHARE, _EQUAL_FRAMES / video.num_frames) else video.fps / annotation_fps


def source_frames(video: VideoInfo, annotation_fps: float | None, annotated: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the source frame nearest in time to each annotated one; `num_frames` and more lie past the end."""
    if video.seconds is None or annotation_fps is None:
        places = annotated * frames_per_annotation(video, annotation_fps)
    else:
        places = np.interp(annotated / annotation_fps, frame_ends(video.seconds), np.arange(video.num_frames + 1))
    frame_numbers: NDArray[np.int64] = np.rint(places).astype(np.int64)
    return frame_numbers


def annotated_frames(video: VideoInfo, annotation_fps: float | None, frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the annotated frame nearest in time to each source frame."""
    if video.seconds is None or annotation_fps is None:
        places = frames / frames_per_annotation(video, annotation_fps)
    else:
        places = np.array(video.seconds)[frames] * annotation_fps
    frame_numbers: NDArray[np.int64] = np.rint(places).astype(np.int64)
    return frame_numbers


def frame_ends(seconds: tuple[float, ...]) -> NDArray[np.float64]:
    """Return when each frame begins and the last one ends, which is taken to be as long as the mean: (F + 1,)."""
    return np.array([*seconds, seconds[-1] + seconds[-1] / (len(seconds) - 1)])


def source_fps(video: VideoInfo, annotation_fps: float | None) -> float:
    """Return the source's frames per second; a folder of unknown rate counts at `annotation_fps`.

    Raises:
        InputError: neither is known.
    """
    rate = video.fps or annotation_fps
    if rate is None:
        raise InputError("the source states no frames per second, which a span or a rate in seconds needs")
    return rate


def annotated_span(tracks: Tracks, video: VideoInfo, annotation_fps: float | None) -> tuple[int, int]:
    """Return the source frames [start, stop) that annotations cover, or the whole source when none lies in it."""
    inside = source_frames(video, annotation_fps, tracks.frames)
    inside = inside[inside < video.num_frames]
    if not len(inside):
        return 0, video.num_frames
    return int(inside[0]), int(inside[-1]) + 1


def frames_of_span(span_sec: tuple[float, float], video: VideoInfo, annotation_fps: float | None) -> tuple[int, int]:
    """Return the source frames [start, stop) that are shown within [start, stop) seconds, at least one.

    A span may reach past the source's end, which ends it.

    Raises:
        InputError: it begins there, or the source's rate is unknown.
    """
    if video.seconds is None:
        first, last = (second * source_fps(video, annotation_fps) for second in span_sec)
    else:
        first, last = np.interp(span_sec, frame_ends(video.seconds), np.arange(video.num_frames + 1))
    start, stop = math.floor(first + 1e-6), math.ceil(last - 1e-6)
    if start >= video.num_frames:
        raise InputError(
            f"the clip begins at {span_sec[0]:g} s, frame {start} of a source of {video.num_frames} frames; expected a "
            "time within it, fetch the source again or check the times"
        )
    return start, min(max(stop, start + 1), video.num_frames)
