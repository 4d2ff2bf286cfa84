"""Frame mAP of scored boxes at key frames, as ActivityNet's evaluation of AVA defines it.

Of each key frame, the 50 highest scores of all its boxes and classes count as detections. A class's detections are
ranked by score over all frames. Each belongs to the true box of its class and frame that it overlaps most; the first
one that reaches an intersection over union of 0.5 with that box is right, every other one is wrong, also where a
second true box would be free. Average precision is the area under the precision, made monotone, over the recall
(Pascal VOC). The mean runs over the classes that have a true box. Equal scores keep the order of the boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MIN_IOU = 0.5
DETECTIONS_A_FRAME = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameBoxes:
    """n boxes at key frames.

    Args:
        frames: (n,) int64; boxes of one key frame have the same number.
        boxes: (n, 4) float64 (x1, y1, x2, y2), with area.
    """

    frames: NDArray[np.int64]
    boxes: FloatArray


def frame_precisions(found: FrameBoxes, scores: NDArray[Any], true: FrameBoxes, labels: NDArray[Any]) -> FloatArray:
    """Return the average precision of every class.

    Args:
        found: n detected boxes.
        scores: (n, K), higher is more probable; comparable between classes.
        true: m annotated boxes.
        labels: (m, K), 1 where a true box shows the class.

    Returns:
        (K,); NaN where no true box shows the class.
    """
    own, other, overlap = overlapping_pairs(found, true)
    kept = highest_of_frame(found.frames, scores)
    precisions = np.full(scores.shape[1], np.nan)
    for k in range(scores.shape[1]):
        shows = labels[:, k] > 0
        if not shows.any():
            continue
        of_class = shows[other]
        match = _best_match(own[of_class], other[of_class], overlap[of_class], len(scores))
        ranked = np.flatnonzero(kept[:, k])
        ranked = ranked[np.argsort(-scores[ranked, k], kind="stable")]
        precisions[k] = average_precision(_first_of_each(match[ranked]), int(shows.sum()))
    return precisions


def average_precision(right: NDArray[np.bool_], num_true: int) -> float:
    """Return the area under the monotone precision of ranked detections, (n,) True where right, over the recall."""
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    highest_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(highest_from_here[right].sum() / num_true)


def highest_of_frame(frames: NDArray[np.int64], scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (n, K) True for the `DETECTIONS_A_FRAME` highest scores of each frame, over its boxes and classes."""
    num_classes = scores.shape[1]
    frame_of = np.repeat(frames, num_classes)
    order = np.lexsort((-scores.ravel(), frame_of))
    ordered = frame_of[order]
    starts = np.searchsorted(ordered, ordered)  # where each one's frame begins
    kept = np.zeros(len(order), np.bool_)
    kept[order[np.arange(len(order)) - starts < DETECTIONS_A_FRAME]] = True
    return kept.reshape(scores.shape)


def overlapping_pairs(found: FrameBoxes, true: FrameBoxes) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Return the pairs of a detected and a true box of one frame that overlap enough: their places, and the overlap."""
    order = np.argsort(true.frames, kind="stable")
    ordered = true.frames[order]
    first = np.searchsorted(ordered, found.frames, side="left")
    counts = np.searchsorted(ordered, found.frames, side="right") - first
    own = np.repeat(np.arange(len(found.frames)), counts)
    within = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
    other = order[np.repeat(first, counts) + within]
    overlap = _iou(found.boxes[own], true.boxes[other])
    enough = overlap >= MIN_IOU
    return own[enough], other[enough], overlap[enough]


def _iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return intersection over union of (n, 4) and (n, 4) boxes, pair by pair."""
    sides = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(min=0)
    inter = sides.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inter
    overlap: FloatArray = inter / union
    return overlap


def _best_match(
    own: NDArray[np.int64], other: NDArray[np.int64], overlap: FloatArray, num_found: int
) -> NDArray[np.int64]:
    """Return (num_found,) the true box that each detected one overlaps most, −1 where none enough."""
    order = np.lexsort((other, -overlap, own))
    places, first = np.unique(own[order], return_index=True)
    match = np.full(num_found, -1, np.int64)
    match[places] = other[order[first]]
    return match


def _first_of_each(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return True where a value of at least 0 occurs for the first time."""
    known, first = np.unique(values, return_index=True)
    out = np.zeros(len(values), np.bool_)
    out[first[known >= 0]] = True
    return out
