"""Views: segments, determinism, and boxes that follow the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from ifcar.errors import InputError
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.frame_times import frames_per_annotation
from ifcar.extract.geometry import FULL_FRAME, Crop
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.sampling import segment_frames
from ifcar.extract.tracks import Tracks
from ifcar.extract.views import ViewPolicy, plan_view

CLIP = Clip(clip_id="7", source=None, frame_size=None)
VIDEO = VideoInfo(clock=FrameClock(num_frames=50, fps=None), width=100, height=80)


def moving_tracks(num_frames: int = 40) -> Tracks:
    frames = np.arange(num_frames)
    boxes = np.stack([frames, np.full_like(frames, 20), frames + 20, np.full_like(frames, 60)], -1)
    return Tracks(frames=frames, boxes=boxes[:, None].astype(np.float32), categories=np.array([2], np.uint8))


def view(policy: ViewPolicy, number: int):  # type: ignore[no-untyped-def]
    return plan_view(policy, CLIP, moving_tracks(), VIDEO, 12.0, view_number=number)


def test_centre_view_takes_the_middle_of_each_segment_of_the_annotated_span() -> None:
    assert view(ViewPolicy(frames=8), 0).frame_indices.tolist() == [2, 7, 12, 17, 22, 27, 32, 37]


def test_short_clip_repeats_frames() -> None:
    assert segment_frames(3, 5, np.full(4, 0.5)).tolist() == [3, 3, 4, 4]


def test_boxes_are_those_of_the_sampled_frames() -> None:
    v = view(ViewPolicy(frames=8), 0)
    np.testing.assert_allclose(v.boxes[:, 0, 0], (v.frame_indices + 10) / 100, atol=1e-6)
    np.testing.assert_allclose(v.boxes[:, 0, 1:], np.tile([0.5, 0.2, 0.5], (8, 1)), atol=1e-6)


@pytest.mark.parametrize(("num_views", "shifts"), [(1, [2]), (2, [1, 3]), (3, [2, 0, 4]), (5, [2, 1, 3, 0, 4])])
def test_plain_views_show_the_same_place_of_each_segment_around_its_middle(num_views: int, shifts: list[int]) -> None:
    """Segments are 5 frames long; V views show the middles of V equal parts of each."""
    for number, shift in enumerate(shifts):
        seen = view(ViewPolicy(frames=8, views=num_views), number)
        assert seen.frame_indices.tolist() == [5 * t + shift for t in range(8)]
        assert not seen.augmented and not seen.flip and seen.crop == FULL_FRAME


@pytest.mark.parametrize("frame_size", [(320, 240), (240, 320)], ids=["wide", "tall"])
def test_three_crops_of_a_window_cover_the_long_side(frame_size: tuple[int, int]) -> None:
    """Six views of two windows: squares of the short side in the middle, at the start and at the end."""
    width, height = frame_size
    video = VideoInfo(clock=FrameClock(num_frames=60, fps=30.0), width=width, height=height)
    policy = ViewPolicy(frames=8, framing="three-crops", views=6, sampling="rate", sampling_fps=6.0)
    views = [plan_view(policy, CLIP, Tracks.none(), video, None, view_number=k) for k in range(6)]
    for first in (0, 3):
        corners = [crop_pixels(view.crop, frame_size) for view in views[first : first + 3]]
        assert corners == [(side_start, 240) for side_start in (40, 0, 80)]
        assert len({tuple(view.frame_indices) for view in views[first : first + 3]}) == 1
    assert [view.frame_indices[0] for view in views[::3]] == [5, 15]  # of windows of 40 in 60 frames


def test_three_crops_come_in_threes() -> None:
    with pytest.raises(InputError, match="views is 4; expected a multiple of 3 with three-crops framing"):
        ViewPolicy(framing="three-crops", views=4)
    with pytest.raises(InputError, match="views is 6; expected at least 9, one for each rate"):
        ViewPolicy(framing="three-crops", views=6, sampling="rate", sampling_rates=(2, 4, 8))


def crop_pixels(crop: Crop, frame_size: tuple[int, int]) -> tuple[int, int]:
    """Return where a square begins along the long side, and its side, in pixels."""
    long = int(frame_size[1] > frame_size[0])
    centre, share = (crop.cx, crop.w) if long == 0 else (crop.cy, crop.h)
    side = share * frame_size[long]
    return round(centre * frame_size[long] - side / 2), round(side)


def test_augmented_views_are_drawn_from_clip_and_number_only() -> None:
    policy = ViewPolicy(augmented_views=2, flip=True)
    first, again, other = view(policy, 1), view(policy, 1), view(policy, 2)
    assert first.augmented and first.crop == again.crop
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert first.crop != other.crop


def test_more_plain_views_leave_augmented_ones_as_they_are() -> None:
    for number in range(3):
        one, four = (view(ViewPolicy(views=v, augmented_views=3), v + number) for v in (1, 4))
        assert one.crop == four.crop and one.frame_indices.tolist() == four.frame_indices.tolist()


def test_augmented_frames_stay_in_their_segments() -> None:
    policy = ViewPolicy(frames=8, augmented_views=39)
    for number in range(1, 40):
        frames = view(policy, number).frame_indices
        assert (frames // 5 == np.arange(8)).all()


def test_frame_numbers_follow_another_frame_rate() -> None:
    def video(num_frames: int, fps: float) -> VideoInfo:
        return VideoInfo(clock=FrameClock(num_frames=num_frames, fps=fps), width=100, height=80)

    assert frames_per_annotation(video(100, 12.3), 12.0) == 1.0
    assert frames_per_annotation(video(27_000, 29.97), 30.0) == pytest.approx(0.999)
    assert frames_per_annotation(video(100, 24.0), 12.0) == 2.0
    assert frames_per_annotation(video(100, 24.0), None) == 1.0
    fast = video(100, 24.0)
    v = plan_view(ViewPolicy(), CLIP, moving_tracks(), fast, 12.0, view_number=0)
    np.testing.assert_allclose(v.boxes[:, 0, 0], (np.rint(v.frame_indices / 2) + 10) / 100, atol=1e-6)
