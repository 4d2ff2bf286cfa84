"""Views: which frames of a clip are seen, through which crop, and where its instances are then.

A view's T frames come from T equal segments of the annotated span. View 0 of every clip takes the middle of each
segment. Further views of a training clip are augmented: a random frame of each segment, a random crop (scale jitter and
position), mirrored half of the time where the options allow it. Further views of other clips keep the centre crop and
take another place of each segment. Boxes go through the same crop and mirror as the pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.extract.decode import VideoInfo
from ifcar.extract.geometry import (
    FULL_FRAME,
    Crop,
    boxes_to_crop,
    center_crop,
    jittered_square,
    multi_scale_square,
    random_crop,
)
from ifcar.extract.tracks import Tracks

Framing = Literal["stretch", "center"]
FRAMINGS: tuple[Framing, ...] = ("stretch", "center")
Cropping = Literal["area", "scale-jitter", "multi-scale"]
CROPPINGS: tuple[Cropping, ...] = ("area", "scale-jitter", "multi-scale")
CENTER_FRACTION = 224 / 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewPolicy:
    """How views are sampled; all of it enters the cache's fingerprint.

    Args:
        num_frames: T.
        crop_size: side of the square that the network sees, in pixels.
        num_instances: N.
        num_views: V.
        framing: what view 0 shows: "stretch", the whole frame resized to the square (Yan et al. 2020, §3.3), or
            "center", the centre square of 224/256 of the short side.
        cropping: of augmented views: "area", a part of the frame at its own aspect, see `random_crop`;
            "scale-jitter" or "multi-scale", a square, see `jittered_square` and `multi_scale_square`.
        min_scale: smallest side of an "area" crop, as a share of the frame's.
        flip: whether augmented views may be mirrored; only right where no class names left or right.
        seed: of the augmented views.
    """

    num_frames: int = 8
    crop_size: int = 224
    num_instances: int = 4
    num_views: int = 1
    framing: Framing = "stretch"
    cropping: Cropping = "area"
    min_scale: float = 0.7
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_frames", 1, 1024),
            ("crop_size", 16, 1024),
            ("num_instances", 1, 256),
            ("num_views", 1, 256),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; expected {low} to {high}")
        if self.framing not in FRAMINGS:
            raise InputError(f"framing is {self.framing!r}; expected one of " + ", ".join(FRAMINGS))
        if self.cropping not in CROPPINGS:
            raise InputError(f"cropping is {self.cropping!r}; expected one of " + ", ".join(CROPPINGS))
        if not 0 < self.min_scale <= 1:
            raise InputError(f"min_scale is {self.min_scale}; expected more than 0 and at most 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One sampling of a clip.

    Args:
        frame_indices: (T,) int32 frame numbers of the source, from 0.
        crop: region of the frame.
        flip: mirrored.
        sampling_rate: frames of the source per sampled frame.
        augmented: drawn at random, for training only.
        boxes: (T, N, 4) float32 (cx, cy, w, h) of the crop; zeros = empty.
        categories: (T, N) uint8.
    """

    frame_indices: NDArray[np.int32]
    crop: Crop
    flip: bool
    sampling_rate: float
    augmented: bool
    boxes: NDArray[np.float32]
    categories: NDArray[np.uint8]


def plan_view(
    policy: ViewPolicy,
    clip_id: str,
    tracks: Tracks,
    video: VideoInfo,
    annotation_fps: float,
    *,
    view_number: int,
    is_training: bool,
) -> View:
    """Sample one view of a clip; the result depends on these arguments only.

    Args:
        policy: the options.
        clip_id: seeds the view, together with its number and the policy's seed.
        tracks: the clip's boxes.
        video: the source's frame count, rate and size.
        annotation_fps: the rate that annotated frame numbers count in, for sources that state another one.
        view_number: 0 … V − 1.
        is_training: whether some protocol trains on the clip.
    """
    digest = hashlib.sha256(f"{policy.seed}\n{view_number}\n{clip_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
    start, stop = annotated_span(tracks, video, annotation_fps)
    augmented = is_training and view_number > 0
    frame_size = (video.width, video.height)
    crop = FULL_FRAME if policy.framing == "stretch" else center_crop(frame_size, CENTER_FRACTION)
    if augmented:
        places = rng.random(policy.num_frames)
        crop = _training_crop(policy, rng, frame_size)
    else:
        places = np.full(policy.num_frames, (0.5 + view_number / policy.num_views) % 1.0)
    flip = bool(augmented and policy.flip and rng.random() < 0.5)
    frames = segment_frames(start, stop, places)
    kept = tracks.keep(policy.num_instances)
    at = kept.at(annotated_frames(video, annotation_fps, frames))
    boxes = np.zeros((policy.num_frames, policy.num_instances, 4), np.float32)
    boxes[:, : at.shape[1]] = boxes_to_crop(at, frame_size, crop, flip)
    categories = np.zeros(boxes.shape[:2], np.uint8)
    categories[:, : at.shape[1]] = kept.categories
    categories[~boxes.any(axis=-1)] = 0
    return View(
        frame_indices=frames.astype(np.int32),
        crop=crop,
        flip=flip,
        sampling_rate=(stop - start) / policy.num_frames,
        augmented=augmented,
        boxes=boxes,
        categories=categories,
    )


def _training_crop(policy: ViewPolicy, rng: np.random.Generator, frame_size: tuple[int, int]) -> Crop:
    if policy.cropping == "scale-jitter":
        return jittered_square(rng, frame_size)
    if policy.cropping == "multi-scale":
        return multi_scale_square(rng, frame_size)
    return random_crop(rng, policy.min_scale)


def frames_per_annotation(fps: float | None, annotation_fps: float) -> float:
    """Return source frames per annotated frame; 1 for a folder, and for rates within 5 % of each other.

    A container states its rate only to within the last frame's duration; 5 % covers videos of 20 frames and more.
    """
    if fps is None or abs(fps / annotation_fps - 1) <= 0.05:
        return 1.0
    return fps / annotation_fps


def source_frames(video: VideoInfo, annotation_fps: float, annotated: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the source frame nearest in time to each annotated one; `num_frames` and more lie past the end."""
    if video.seconds is None:
        places = annotated * frames_per_annotation(video.fps, annotation_fps)
    else:
        last, count = video.seconds[-1], video.num_frames
        ends = [*video.seconds, last + last / (count - 1)]  # the last frame is taken to be as long as the mean
        places = np.interp(annotated / annotation_fps, ends, np.arange(count + 1))
    frame_numbers: NDArray[np.int64] = np.rint(places).astype(np.int64)
    return frame_numbers


def annotated_frames(video: VideoInfo, annotation_fps: float, frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the annotated frame nearest in time to each source frame."""
    if video.seconds is None:
        places = frames / frames_per_annotation(video.fps, annotation_fps)
    else:
        places = np.array(video.seconds)[frames] * annotation_fps
    frame_numbers: NDArray[np.int64] = np.rint(places).astype(np.int64)
    return frame_numbers


def annotated_span(tracks: Tracks, video: VideoInfo, annotation_fps: float) -> tuple[int, int]:
    """Return the source frames [start, stop) that annotations cover, or the whole source when none lies in it."""
    inside = source_frames(video, annotation_fps, tracks.frames)
    inside = inside[inside < video.num_frames]
    if not len(inside):
        return 0, video.num_frames
    return int(inside[0]), int(inside[-1]) + 1


def segment_frames(start: int, stop: int, places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one frame of each of len(places) equal segments of [start, stop), at that place in [0, 1) of it."""
    num_segments = len(places)
    frames = start + (np.arange(num_segments) + places) * (stop - start) / num_segments
    return np.floor(frames).astype(np.int64).clip(start, max(start, stop - 1))
