"""Which frames a view takes: spans of a video, annotated frames, fixed rates, and views that share several rates."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifcar.errors import InputError
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.sampling import plain_places, strided_frames
from ifcar.extract.tracks import Tracks
from ifcar.extract.view_content import View
from ifcar.extract.views import ViewPolicy, plan_view

SIXTY_SECONDS = VideoInfo(clock=FrameClock(num_frames=1440, fps=24.0), width=100, height=80)
FOLDER = VideoInfo(clock=FrameClock(num_frames=1440, fps=None), width=100, height=80)
THIRTY_VIEWS = ViewPolicy(frames=32, views=30, sampling="rate", sampling_rates=(2, 4, 8))


def clip(span_sec: tuple[float, float] | None = None) -> Clip:
    return Clip(clip_id="7", source=None, frame_size=None, span_sec=span_sec)


def tracks_at(*frames: int) -> Tracks:
    """One object that is in these annotated frames, at x = 30 + the frame's place in the list."""
    boxes = np.array([[[30 + k, 20, 50 + k, 60]] for k in range(len(frames))], np.float32).reshape(-1, 1, 4)
    return Tracks(frames=np.array(frames, np.int64), boxes=boxes, categories=np.array([2], np.uint8))


def plan(
    policy: ViewPolicy,
    tracks: Tracks,
    video: VideoInfo = SIXTY_SECONDS,
    annotation_fps: float | None = None,
    *,
    span_sec: tuple[float, float] | None = None,
    view_number: int = 0,
) -> View:
    return plan_view(policy, clip(span_sec), tracks, video, annotation_fps, view_number=view_number)


def test_clip_of_a_span_shows_the_span_and_frames_without_a_record_have_no_boxes() -> None:
    view = plan(ViewPolicy(frames=4), tracks_at(255, 260, 1000), span_sec=(10.0, 12.0))
    assert view.frame_indices.tolist() == [246, 258, 270, 282]
    assert not view.boxes.any() and not view.categories.any() and view.sampling_rate == 12
    view = plan(ViewPolicy(frames=4), tracks_at(246, 247, 282, 1000), span_sec=(10.0, 12.0))
    assert view.categories[:, 0].tolist() == [2, 0, 0, 2]
    np.testing.assert_allclose(view.boxes[[0, 3], 0, 0], [0.40, 0.42], atol=1e-6)


def test_seconds_of_a_folder_count_at_the_annotations_rate() -> None:
    at_12 = plan(ViewPolicy(frames=4), tracks_at(0), FOLDER, 12.0, span_sec=(10.0, 12.0))
    assert at_12.frame_indices.tolist() == [123, 129, 135, 141]
    stated = VideoInfo(clock=FrameClock(num_frames=1440, fps=24.0), width=100, height=80)
    assert plan(ViewPolicy(frames=4), tracks_at(0), stated, 12.0, span_sec=(10.0, 12.0)).frame_indices[0] == 246
    with pytest.raises(InputError, match="no frames per second"):
        plan(ViewPolicy(frames=4), tracks_at(0), FOLDER, None, span_sec=(10.0, 12.0))


def test_span_ends_with_its_source_and_may_not_begin_behind_it() -> None:
    assert plan(ViewPolicy(frames=4), tracks_at(0), span_sec=(59.0, 80.0)).frame_indices.max() < 1440
    with pytest.raises(InputError, match=r"begins at 61 s, frame 1464 of a source of 1440 frames"):
        plan(ViewPolicy(frames=4), tracks_at(0), span_sec=(61.0, 80.0))
    with pytest.raises(InputError, match="expected 0 <= start < stop"):
        clip((3.0, 3.0))


@pytest.mark.parametrize("annotation_fps", [None, 24.0, 60.0, 12.0])
def test_every_frame_sampled_from_annotated_ones_has_its_own_boxes(annotation_fps: float | None) -> None:
    policy = ViewPolicy(frames=4, augmented_views=7, sampling="annotated", min_scale=1.0)
    known = (89, 90, 107, 300, 301, 411, 420, 455)
    for number in range(8):
        view = plan(policy, tracks_at(*known), annotation_fps=annotation_fps, view_number=number)
        assert (view.categories[:, 0] == 2).all()
        centres = view.crop.cx + (view.boxes[:, 0, 0] - 0.5) * view.crop.w
        chosen = [round(float(x) * 100 - 40) for x in centres]
        per_frame = 1.0 if annotation_fps is None else 24.0 / annotation_fps
        assert view.frame_indices.tolist() == [round(known[k] * per_frame) for k in chosen]
        assert all(k // 2 == part for part, k in enumerate(chosen))
        assert view.augmented == (number > 0)


def test_fewer_annotated_frames_than_sampled_ones_repeat_and_none_leaves_segments() -> None:
    policy = ViewPolicy(frames=4, sampling="annotated")
    assert plan(policy, tracks_at(30, 90)).frame_indices.tolist() == [30, 30, 90, 90]
    assert plan(policy, tracks_at(30, 90), span_sec=(3.0, 5.0)).frame_indices.tolist() == [90] * 4
    view = plan(policy, tracks_at(30, 90), span_sec=(10.0, 12.0))
    assert view.frame_indices.tolist() == [246, 258, 270, 282] and not view.boxes.any()


def test_frames_at_6_a_second_of_a_24_fps_video_are_4_apart() -> None:
    policy = ViewPolicy(frames=32, sampling="rate", sampling_fps=6)
    view = plan(policy, tracks_at(*range(0, 1440, 8)), span_sec=(10.0, 30.0))
    assert np.diff(view.frame_indices).tolist() == [4] * 31 and view.sampling_rate == 4
    middle = (view.frame_indices[0] + view.frame_indices[-1] + 4) / 2
    assert middle == 20 * 24
    assert view.categories[:, 0].tolist() == [2 if f % 8 == 0 else 0 for f in view.frame_indices]
    at_12 = plan(policy, tracks_at(0), FOLDER, 12.0, span_sec=(10.0, 30.0))
    assert np.diff(at_12.frame_indices).tolist() == [2] * 31


def test_window_longer_than_the_span_begins_with_it_and_repeats_its_last_frame() -> None:
    for place in (0.0, 0.5, 1.0):
        assert strided_frames(10, 20, 8, 2, place).tolist() == [10, 12, 14, 16, 18, 19, 19, 19]
    assert strided_frames(10, 20, 2, 2, 1.0).tolist() == [16, 18]
    assert strided_frames(0, 100, 4, 2.5, 0.0).tolist() == [0, 2, 5, 7]


def test_thirty_views_share_three_rates_and_those_of_one_rate_lie_evenly_around_the_middle() -> None:
    views = [plan(THIRTY_VIEWS, tracks_at(0), span_sec=(0.0, 60.0), view_number=k) for k in range(30)]
    assert Counter(view.sampling_rate for view in views) == {2: 9, 4: 12, 8: 9}
    for rate, count in ((2, 9), (4, 12), (8, 9)):
        starts = sorted(int(view.frame_indices[0]) for view in views if view.sampling_rate == rate)
        assert starts == [int((1440 - 32 * rate) * (2 * k + 1) / (2 * count)) for k in range(count)]
    assert not any(view.augmented for view in views)


@pytest.mark.parametrize(
    ("rates", "num_views", "firsts"),
    [
        # windows of 8 frames at rate 2 span 16 of 96 frames, so that the one in the middle begins at 40
        ((2,), 1, [40]),
        ((2,), 2, [20, 60]),
        ((2,), 3, [40, 13, 66]),
        ((2,), 4, [30, 50, 10, 70]),
        # at rate 4 they span 32, at rate 8 64; the middle rate comes first
        ((2, 4, 8), 3, [32, 40, 16]),
        ((2, 4), 4, [20, 60, 16, 48]),
    ],
)
def test_plain_views_at_rates_are_these_frames_of_a_clip_of_96(
    rates: tuple[float, ...], num_views: int, firsts: list[int]
) -> None:
    policy = ViewPolicy(frames=8, views=num_views, sampling="rate", sampling_rates=rates)
    video = VideoInfo(clock=FrameClock(num_frames=96, fps=None), width=100, height=80)
    views = [plan(policy, tracks_at(0, 95), video, view_number=k) for k in range(num_views)]
    assert [int(view.frame_indices[0]) for view in views] == firsts
    for view in views:
        assert np.diff(view.frame_indices).tolist() == [view.sampling_rate] * 7


@given(
    num_frames=st.integers(1, 8), num_views=st.integers(1, 12), length=st.integers(1, 300), rate=st.sampled_from([2, 4])
)
def test_the_places_of_plain_views_mirror_each_other_in_the_middle(
    num_frames: int, num_views: int, length: int, rate: int
) -> None:
    places = plain_places(num_views)
    assert np.allclose(np.sort(places), np.sort([1 - place for place in places]))
    assert np.all(np.diff(np.abs(np.array(places) - 0.5).round(9)) >= 0)
    room = max(0, length - num_frames * rate)
    for place in places:
        first = int(strided_frames(0, length, num_frames, rate, place)[0])
        assert first <= room and abs(first - place * room) <= 1


def test_augmented_views_take_the_rates_in_turn_and_random_windows() -> None:
    policy = replace(THIRTY_VIEWS, augmented_views=30)
    views = [plan(policy, tracks_at(0), span_sec=(0.0, 60.0), view_number=k) for k in range(30, 60)]
    assert all(view.augmented for view in views)
    assert Counter(view.sampling_rate for view in views) == {2: 10, 4: 10, 8: 10}
    assert len({(view.sampling_rate, int(view.frame_indices[0])) for view in views}) == 30
    assert len({view.crop for view in views}) == 30


def test_clips_begin_with_different_rates_all_alike() -> None:
    policy = replace(THIRTY_VIEWS, augmented_views=1)
    video, tracks = SIXTY_SECONDS, tracks_at(0)
    counts = Counter(
        plan_view(
            policy, Clip(clip_id=str(k), source=None, frame_size=None), tracks, video, None, view_number=30
        ).sampling_rate
        for k in range(600)
    )
    assert set(counts) == {2, 4, 8} and min(counts.values()) > 150


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "rate"}, "expected sampling_fps or sampling_rates"),
        ({"sampling": "rate", "sampling_fps": 6, "sampling_rates": (2,)}, "exclude each other"),
        ({"sampling": "annotated", "sampling_fps": 6}, "which sampling_fps excludes"),
        ({"sampling": "segments", "sampling_rates": (2,)}, "which sampling_rates excludes"),
        ({"sampling": "often"}, "expected one of segments, annotated, rate"),
        ({"sampling": "rate", "sampling_fps": float("nan")}, "sampling_fps is nan"),
        ({"sampling": "rate", "sampling_rates": (4, 2), "views": 2}, "ascending"),
        ({"sampling": "rate", "sampling_rates": (0, 2), "views": 2}, "ascending"),
        ({"sampling": "rate", "sampling_rates": (2, 4, 8), "views": 2}, "at least 3, one for each rate"),
        ({"views": 200, "augmented_views": 57}, "views are 200 and augmented_views 57; expected up to 256 together"),
        ({"augmented_views": -1}, "augmented_views is -1; expected at least 0"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ViewPolicy(**options)  # type: ignore[arg-type]
