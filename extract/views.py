"""Views: which frames of a clip are seen, through which crop, and where its instances are then.

A clip covers the span that its dataset states, or else that of its annotated frames. A view takes T frames of it:
    segments    one of each of T equal segments of the span
    annotated   one of each of T equal parts of the list of annotated frames; fewer than T repeat
    rate        T frames a fixed number of source frames apart, see `strided_frames`
A clip has V plain views and after them A augmented ones. Plain views are for training and tests alike: the middle of
each segment or part, or the window in the middle of the span; of several views, places evenly around that middle, view
0 the one nearest to it; with three crops each place has three views, one after another. Augmented views are for
training only: a random frame of each segment or a random window, a random crop (scale jitter and position), mirrored
half of the time where the options allow it; they take several rates in turn, from one that is drawn for each clip. A
view depends on its clip and number alone, never on protocols, and an augmented one not on V. Boxes go through the same
crop and mirror as the pixels; they are those of the annotated frame nearest in time, and a sampled frame without one
has none: nothing is interpolated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import LAYOUT, MASKS, SCORES, ArraySpec
from ifcar.cache.manifest import MAX_VIEWS
from ifcar.config_fields import check_fields
from ifcar.errors import InputError
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.frame_times import annotated_frames, annotated_span, clock_of, frames_of_span, source_frames
from ifcar.extract.geometry import (
    FULL_FRAME,
    Crop,
    center_crop,
    jittered_square,
    multi_scale_square,
    random_crop,
    side_crop,
)
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.sampling import place_of_view, plain_places, segment_frames, strided_frames
from ifcar.extract.tracks import Tracks
from ifcar.extract.view_content import View, fill_slots, with_background
from ifcar.extract.view_options import FRAMES, SIDES, AugmentedViews, CroppedViews, LayoutViews, SampledViews, Sampling

CENTER_FRACTION = 224 / 256
CROP_PLACES = (0.5, 0.0, 1.0)  # along the long side, of three crops
MAX_SAMPLING_RATE = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewPolicy(SampledViews, AugmentedViews, CroppedViews, LayoutViews):
    """How views are sampled and cropped, with nothing left to the dataset; all of it enters the cache's fingerprint."""

    frames: Annotated[int, FRAMES] = 8
    crop: Annotated[int, SIDES] = 224
    sampling: Sampling = "segments"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.rows_per_clip > MAX_VIEWS:
            found = f"views are {self.views} and augmented_views {self.augmented_views}"
            raise InputError(f"{found}; expected up to {MAX_VIEWS} together")
        if self.views % self.num_crops:
            raise InputError(f"views is {self.views}; expected a multiple of {self.num_crops} with three-crops framing")
        if self.background and self.instances < 2:
            raise InputError("background takes the last of the instance slots; expected instances from 2 on")
        self._check_sampling()

    @property
    def rows_per_clip(self) -> int:
        """V + A."""
        return self.views + self.augmented_views

    @property
    def num_crops(self) -> int:
        """How many plain views share a place in time."""
        return len(CROP_PLACES) if self.framing == "three-crops" else 1

    def over_layout(self) -> ViewPolicy:
        """Return how the frames of the layout are taken: T_L of the whole clip."""
        own: Sampling = "annotated" if self.sampling == "annotated" else "segments"
        return replace(self, frames=self.layout_frames, sampling=own, sampling_fps=None, sampling_rates=())

    @property
    def num_places(self) -> int:
        """How many places in time the plain views have."""
        return self.views // self.num_crops

    def _check_sampling(self) -> None:
        fps, rates = self.sampling_fps, self.sampling_rates
        if fps is not None and rates:
            raise InputError("sampling_fps and sampling_rates exclude each other; give one of them")
        if self.sampling == "rate" and fps is None and not rates:
            raise InputError("sampling is 'rate'; expected sampling_fps or sampling_rates beside it")
        if self.sampling != "rate" and (fps is not None or rates):
            name = "sampling_rates" if rates else "sampling_fps"
            raise InputError(f"sampling is {self.sampling!r}, which {name} excludes; expected rate, or no {name}")
        if not all(0 < rate <= MAX_SAMPLING_RATE for rate in rates) or sorted(set(rates)) != list(rates):
            raise InputError(
                f"sampling_rates are {rates}; expected source frames per sampled frame, ascending, up to "
                f"{MAX_SAMPLING_RATE:g}"
            )
        if len(rates) > self.num_places:
            needed = len(rates) * self.num_crops
            raise InputError(f"views is {self.views}; expected at least {needed}, one for each rate")


def plan_view(
    policy: ViewPolicy,
    clip: Clip,
    tracks: Tracks,
    video: VideoInfo,
    annotation_fps: float | None,
    *,
    view_number: int,
    proposals: Tracks | None = None,
    proposals_fps: float | None = None,
    carried: Sequence[ArraySpec] = (),
) -> View:
    """Sample one view of a clip; the result depends on these arguments only.

    Args:
        policy: the options.
        clip: its id seeds the view, together with the view's number and the policy's seed.
        tracks: the clip's boxes.
        video: the source's frame count, rate and size.
        annotation_fps: the rate that annotated frame numbers count in; None: they are the source's.
        view_number: 0 … V − 1 are plain, from V on augmented, without end.
        proposals: the boxes that are seen in place of the clip's own, which then only say which frames are sampled.
        proposals_fps: the rate that their frame numbers count in; None: they are the source's.
        carried: the arrays that the boxes' tracks carry beside them; scores are kept at the frames of the layout only.

    Raises:
        InputError: nothing of the clip lies within its source, the source's rate is needed and unknown, or the tracks
            do not carry what they should.
    """
    number = view_number - policy.views  # of an augmented view
    augmented = number >= 0
    rng = _generator(policy.seed, number + 1, clip.clip_id)
    frame_size = (video.width, video.height)
    sampled = _sample(policy, clip, tracks, video, annotation_fps, view_number, rng if augmented else None)
    crop = _training_crop(policy, rng, frame_size) if augmented else _plain_crop(policy, view_number, frame_size)
    flip = bool(augmented and policy.flip and rng.random() < 0.5)
    kept = (tracks if proposals is None else proposals).keep(policy.instances - policy.background)

    def filled(frames: _Sampled, arrays: Sequence[ArraySpec]) -> dict[str, NDArray[Any]]:
        shown = frames.annotated
        if proposals is not None and proposals_fps != annotation_fps:
            shown = annotated_frames(video, proposals_fps, frames.frames, clip.origin_sec)
        seen = kept.at(shown)
        if policy.background and MASKS in arrays:
            seen = with_background(seen, arrays, policy.instances, frame_size)
        return fill_slots(seen, arrays, policy.instances, frame_size, crop, flip)

    layout: dict[str, NDArray[Any]] = {}
    if policy.layout_frames:
        rng = _generator(policy.seed, number + 1, clip.clip_id, "layout")
        over = _sample(
            policy.over_layout(), clip, tracks, video, annotation_fps, view_number, rng if augmented else None
        )
        layout = {f"{LAYOUT}{name}": v for name, v in filled(over, [a for a in carried if a == SCORES]).items()}
    return View(
        frame_indices=sampled.frames.astype(np.int32),
        crop=crop,
        flip=flip,
        sampling_rate=sampled.rate,
        augmented=augmented,
        arrays=filled(sampled, [array for array in carried if array != SCORES]) | layout,
    )


def _generator(*seeds: object) -> np.random.Generator:
    digest = hashlib.sha256("\n".join(map(str, seeds)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sampled:
    """T frames of the source, the annotated frames that belong to them, and source frames per sampled frame."""

    frames: NDArray[np.int64]
    annotated: NDArray[np.int64]
    rate: float


def _sample(
    policy: ViewPolicy,
    clip: Clip,
    tracks: Tracks,
    video: VideoInfo,
    annotation_fps: float | None,
    view_number: int,
    rng: np.random.Generator | None,
) -> _Sampled:
    """Choose a view's frames, at random where there is a generator."""
    num_frames = policy.frames
    origin_sec, clock = clip.origin_sec, clock_of(video, annotation_fps)
    if clip.span_sec is None:
        start, stop = annotated_span(tracks, video, annotation_fps, origin_sec)
    else:
        start, stop = frames_of_span(clip.span_sec, clock)
    if policy.sampling == "rate":
        fps = policy.sampling_fps
        rates = policy.sampling_rates if fps is None else (clock.rate() / fps,)
        number, place = _rate_and_place(policy, clip, view_number, len(rates), rng)
        if fps is None:
            frames = strided_frames(start, stop, num_frames, rates[number], place)
        else:
            frames = clock.strided(start, stop, fps, num_frames, place)
        annotated = annotated_frames(video, annotation_fps, frames, origin_sec)
        return _Sampled(frames=frames, annotated=annotated, rate=rates[number])
    if rng is None:
        places = np.full(num_frames, plain_places(policy.num_places)[view_number // policy.num_crops])
    else:
        places = rng.random(num_frames)
    if policy.sampling == "annotated":
        known = tracks.frames[np.isfinite(tracks.boxes[..., 0]).any(axis=1)]
        shown = source_frames(video, annotation_fps, known, origin_sec)
        inside = (shown >= start) & (shown < stop)
        known, shown = known[inside], shown[inside]
        if len(known):
            chosen = segment_frames(0, len(known), places)
            rate = float(shown[-1] + 1 - shown[0]) / num_frames
            return _Sampled(frames=shown[chosen], annotated=known[chosen], rate=rate)
    frames = segment_frames(start, stop, places)
    annotated = annotated_frames(video, annotation_fps, frames, origin_sec)
    return _Sampled(frames=frames, annotated=annotated, rate=(stop - start) / num_frames)


def _rate_and_place(
    policy: ViewPolicy, clip: Clip, view_number: int, num_rates: int, rng: np.random.Generator | None
) -> tuple[int, float]:
    """Return which rate a view has and where its window lies, at random where there is a generator."""
    if rng is None:
        return place_of_view(view_number // policy.num_crops, policy.num_places, num_rates)
    first = int(_generator(policy.seed, clip.clip_id).integers(num_rates))
    return (first + view_number - policy.views) % num_rates, float(rng.random())


def _plain_crop(policy: ViewPolicy, view_number: int, frame_size: tuple[int, int]) -> Crop:
    if policy.framing == "stretch":
        return FULL_FRAME
    if policy.framing == "center":
        return center_crop(frame_size, CENTER_FRACTION)
    return side_crop(frame_size, CROP_PLACES[view_number % policy.num_crops])


def _training_crop(policy: ViewPolicy, rng: np.random.Generator, frame_size: tuple[int, int]) -> Crop:
    if policy.cropping == "scale-jitter":
        return jittered_square(rng, frame_size)
    if policy.cropping == "multi-scale":
        return multi_scale_square(rng, frame_size)
    return random_crop(rng, policy.min_scale)
