"""Frame mAP against what a hand counts, and against a literal loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ifcar.pipelines.scoring.frame_map import FrameBoxes, frame_precisions

LEFT, RIGHT = (0.0, 0.0, 0.4, 0.8), (0.5, 0.0, 0.9, 0.8)
NEAR_LEFT = (0.1, 0.0, 0.5, 0.8)  # IoU with LEFT: 0.3 / 0.5 = 0.6
FAR_LEFT = (0.2, 0.0, 0.6, 0.8)  # IoU with LEFT: 0.2 / 0.6 = 1/3


def boxes(*entries: tuple[int, tuple[float, float, float, float]]) -> FrameBoxes:
    return FrameBoxes(
        frames=np.array([frame for frame, _ in entries], np.int64), boxes=np.array([box for _, box in entries])
    )


def test_area_under_the_monotone_precision_is_what_a_hand_counts() -> None:
    true = boxes((0, LEFT), (0, RIGHT), (1, LEFT))
    labels = np.array([[1, 0], [1, 0], [1, 0]])
    found = boxes((0, NEAR_LEFT), (0, FAR_LEFT), (0, RIGHT), (1, LEFT))
    scores = np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.2, 0.1]])
    # ranks: right, wrong (IoU 1/3), right, right; precision 1, 1/2, 2/3, 3/4 becomes 1, 3/4, 3/4, 3/4
    precisions = frame_precisions(found, scores, true, labels)
    assert precisions[0] == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    assert np.isnan(precisions[1])


def test_true_box_is_found_once_by_the_highest_score_and_only_in_its_own_frame() -> None:
    true = boxes((0, LEFT), (7, LEFT))
    found = boxes((0, NEAR_LEFT), (0, LEFT), (3, LEFT))
    # ranks: the exact box, the near one (a duplicate), one in another frame; the box of frame 7 is missed
    assert frame_precisions(found, np.array([[0.5], [0.6], [0.4]]), true, np.ones((2, 1)))[0] == pytest.approx(1 / 2)


def test_detection_goes_to_the_box_it_overlaps_most_although_another_is_free() -> None:
    true = boxes((0, LEFT), (0, NEAR_LEFT))
    found = boxes((0, LEFT), (0, (0.01, 0.0, 0.41, 0.8)))
    # the second lies nearest to LEFT, which the first has found: wrong, although NEAR_LEFT is free (IoU 0.31 / 0.49)
    assert frame_precisions(found, np.array([[0.9], [0.8]]), true, np.ones((2, 1)))[0] == pytest.approx(1 / 2)


def test_only_the_fifty_highest_scores_of_a_frame_count() -> None:
    """60 boxes side by side, all true: the ten lowest are missed, and precision stays 1."""
    row = [(0, (k / 60, 0.0, (k + 1) / 60, 1.0)) for k in range(60)]
    scores = np.linspace(1, 0, 60)[:, None]
    assert frame_precisions(boxes(*row), scores, boxes(*row), np.ones((60, 1)))[0] == pytest.approx(50 / 60)


def literal(found: FrameBoxes, scores: NDArray[Any], true: FrameBoxes, labels: NDArray[Any], k: int) -> float:
    """Go through the definition, one detection after another."""
    detections = []
    for frame in sorted(set(found.frames.tolist())):
        of_frame = [(scores[i, c], i, c) for i in range(len(scores)) if found.frames[i] == frame for c in range(3)]
        detections += [(s, i) for s, i, c in sorted(of_frame, key=lambda d: -d[0])[:50] if c == k]
    taken: set[int] = set()
    right = []
    for _, i in sorted(detections, key=lambda d: -d[0]):
        best, best_iou = -1, 0.0
        for j in range(len(labels)):
            if labels[j, k] and true.frames[j] == found.frames[i]:
                a, b = found.boxes[i], true.boxes[j]
                width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
                height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
                total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
                if width * height / total > best_iou:
                    best, best_iou = j, width * height / total
        right.append(best_iou >= 0.5 and best not in taken)
        if right[-1]:
            taken.add(best)
    area = 0.0
    for rank in range(len(right)):
        if right[rank]:
            area += max(sum(right[: r + 1]) / (r + 1) for r in range(rank, len(right)))
    return area / int(labels[:, k].sum())


def test_random_boxes_score_as_a_literal_loop_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        corner, side = rng.uniform(0, 0.5, (60, 2)), rng.uniform(0.3, 0.5, (60, 2))
        true = FrameBoxes(frames=rng.integers(0, 4, 60), boxes=np.concatenate([corner, corner + side], 1))
        places = rng.integers(0, 60, 90)
        moved = true.boxes[places] + rng.normal(0, 0.04, (90, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 0.05)
        found = FrameBoxes(frames=true.frames[places], boxes=moved)
        labels = (rng.random((60, 3)) < 0.4).astype(np.uint8)
        scores = rng.random((90, 3)) * 0.5 + 0.5 * labels[places]
        precisions = frame_precisions(found, scores, true, labels)
        assert 0.05 < precisions.min() < precisions.max() < 1
        for k in range(3):
            assert precisions[k] == pytest.approx(literal(found, scores, true, labels, k))
