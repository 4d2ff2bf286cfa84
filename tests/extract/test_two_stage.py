"""Boxes linked in two stages: hand-made frames whose tracks a person can read off, and what never changes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ifcar.errors import InputError
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.two_stage import NO_TRACK, LinkConfig, link_two_stage

Box = tuple[float, float, float]
"""Left end of a box of 10 × 10, score, class."""


def frame(*boxes: Box) -> FrameDetections:
    left = np.array([box[0] for box in boxes])
    corners = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=1) if len(boxes) else np.zeros((0, 4))
    return FrameDetections.of(corners, np.array([box[1] for box in boxes]), np.array([box[2] for box in boxes]))


def linked(frames: Sequence[Sequence[Box]], **options: float) -> list[list[int]]:
    config = LinkConfig(**{"least_boxes": 1, **options})  # type: ignore[arg-type]
    return [own.tolist() for own in link_two_stage([frame(*boxes) for boxes in frames], config)]


def test_a_low_score_goes_on_with_a_track_and_begins_none() -> None:
    assert linked([[(0, 0.9, 1)], [(1, 0.2, 1), (50, 0.2, 1)], [(2, 0.7, 1), (50, 0.55, 1)]]) == [
        [0],
        [0, NO_TRACK],
        [0, NO_TRACK],  # 0.55 is matched first with tracks, and there is none
    ]


def test_a_high_score_is_matched_before_a_low_one_that_overlaps_more() -> None:
    assert linked([[(0, 0.9, 1)], [(0, 0.4, 1), (4, 0.8, 1)]]) == [[0], [NO_TRACK, 0]]


def test_the_highest_total_overlap_decides_and_not_the_first_track() -> None:
    """Track 0 overlaps the box at 2 most, but track 1 can go on in no other."""
    assert linked([[(0, 0.9, 1), (5, 0.9, 1)], [(2, 0.9, 1), (-4, 0.9, 1)]]) == [[0, 1], [1, 0]]


def test_below_the_least_overlap_a_box_begins_its_own_track() -> None:
    # 10 × 10 at a distance of d overlaps by (10 − d) / (10 + d): 0.333 at 5, 0.25 at 6
    assert linked([[(0, 0.9, 1)], [(5, 0.9, 1)]]) == [[0], [0]]
    assert linked([[(0, 0.9, 1)], [(6, 0.9, 1)]]) == [[0], [1]]


def test_classes_are_linked_by_themselves() -> None:
    assert linked([[(0, 0.9, 1), (0, 0.9, 2)], [(1, 0.9, 2)], [(2, 0.9, 1)]]) == [[0, 1], [1], [0]]


@pytest.mark.parametrize(("gap", "expected"), [(2, 0), (3, 1)])
def test_a_track_waits_as_many_frames_as_it_may_miss(gap: int, expected: int) -> None:
    frames = [[(0.0, 0.9, 1.0)], *[[]] * gap, [(0.0, 0.9, 1.0)]]
    assert linked(frames, patience=2)[-1] == [expected]


def test_short_tracks_are_left_out_and_numbers_stay_without_gaps() -> None:
    frames = [[(0, 0.9, 1), (40, 0.9, 1)], [(40, 0.9, 1)], [(40, 0.9, 1)]]
    assert linked(frames, least_boxes=3) == [[NO_TRACK, 0], [0], [0]]
    assert linked([], least_boxes=3) == [] and linked([[], []]) == [[], []]


def test_the_order_of_boxes_in_a_frame_changes_no_track() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        frames = [
            [
                (float(x), float(s), float(c))
                for x, s, c in zip(*rng.random((2, 6)) * [[60], [1]], rng.integers(1, 3, 6), strict=True)
            ]
            for _ in range(8)
        ]
        orders = [rng.permutation(6) for _ in frames]
        plain = linked(frames)
        mixed = linked([[own[k] for k in order] for own, order in zip(frames, orders, strict=True)])
        sets = [
            {
                frozenset(
                    (t, frames[t][k if order is None else order[k]])
                    for t, (own, order) in enumerate(zip(found, given, strict=True))
                    for k in range(6)
                    if own[k] == number
                )
                for number in range(max(max(own) for own in found) + 1)
            }
            for found, given in ((plain, [None] * 8), (mixed, orders))
        ]
        assert sets[0] == sets[1]


def test_scores_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match=r"score, high_score and new_score are 0.5, 0.4 and 0.6; expected none below"):
        LinkConfig(score=0.5, high_score=0.4)
