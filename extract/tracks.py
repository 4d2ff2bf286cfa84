"""Boxes over time: linking detections into tracks, and choosing which N tracks a clip keeps.

Boxes here are pixels (x1, y1, x2, y2); NaN where a track has no box in a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.schema import Category

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """One annotated box in one frame.

    Args:
        key: the slot's name ("0000", "hand", …); equal keys in one frame are different instances.
        is_subject: True for a hand or a person.
        box: (x1, y1, x2, y2) in pixels.
        track: number of its track in the clip; None where that is to be found out.
        values: what it has beside its box, by name, as `Tracks.values` without its first two axes.
    """

    key: str
    is_subject: bool
    box: tuple[float, float, float, float]
    track: int | None = None
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracks:
    """The M instances of a clip over its F annotated frames.

    Args:
        frames: (F,) int64 frame numbers from 0, ascending.
        boxes: (F, M, 4) float32 pixels; NaN = absent.
        categories: (M,) uint8, `Category.SUBJECT` or `Category.OBJECT`; or (F, M) where slots hold what is found in
            each frame by itself.
        values: (F, M, …) by name, what each track has in each frame beside its box, see `Dataset.track_arrays`.
    """

    frames: NDArray[np.int64]
    boxes: FloatArray
    categories: NDArray[np.uint8]
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def none(cls) -> Self:
        """Return the tracks of a clip without annotation."""
        no_boxes = np.zeros((0, 0, 4), np.float32)
        return cls(frames=np.zeros(0, np.int64), boxes=no_boxes, categories=np.zeros(0, np.uint8))

    @classmethod
    def held(cls, frames: NDArray[np.int64], boxes: FloatArray) -> Self:
        """Return the tracks of subjects whose boxes (M, 4) are the same in all frames."""
        subjects = np.full(len(boxes), Category.SUBJECT, np.uint8)
        return cls(frames=frames, boxes=np.broadcast_to(boxes, (len(frames), *boxes.shape)), categories=subjects)

    def keep(self, num_instances: int) -> Tracks:
        """Keep at most N tracks: subjects first, then the tracks with most boxes, then the order of the keys."""
        lengths = np.isfinite(self.boxes[..., 0]).sum(axis=0)
        is_subject = (np.atleast_2d(self.categories) == Category.SUBJECT).any(axis=0)
        order = np.lexsort((np.arange(len(lengths)), -lengths, ~is_subject))
        chosen = order[:num_instances]
        return Tracks(
            frames=self.frames,
            boxes=self.boxes[:, chosen],
            categories=self.categories[..., chosen],
            values={name: value[:, chosen] for name, value in self.values.items()},
        )

    def at(self, frames: NDArray[np.int64]) -> Tracks:
        """Return the tracks at these frame numbers, in any order; absent where a frame has no record."""
        place, known = np.zeros(len(frames), np.int64), np.zeros(len(frames), np.bool_)
        if len(self.frames):
            place = np.searchsorted(self.frames, frames).clip(max=len(self.frames) - 1)
            known = self.frames[place] == frames

        def pick(stored: NDArray[Any], absent: float) -> NDArray[Any]:
            out = np.full((len(frames), *stored.shape[1:]), absent, stored.dtype)
            out[known] = stored[place[known]]
            return out

        values = {name: pick(value, 0) for name, value in self.values.items()}
        categories = self.categories if self.categories.ndim == 1 else pick(self.categories, 0)
        return replace(self, frames=frames, boxes=pick(self.boxes, np.nan), categories=categories, values=values)


def box_iou(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Return intersection over union of (A, 4) and (B, 4) pixel boxes: (A, B)."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a64[:, None, :2], b64[None, :, :2])
    high = np.minimum(a64[:, None, 2:], b64[None, :, 2:])
    inter = (high - low).clip(min=0).prod(-1)
    area_a = (a64[:, 2:] - a64[:, :2]).prod(-1)
    area_b = (b64[:, 2:] - b64[:, :2]).prod(-1)
    overlap: NDArray[np.float64] = inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-9)
    return overlap


def numbered(
    frames: NDArray[np.int64],
    detections: Sequence[Sequence[Detection]],
    empty: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> Tracks:
    """Return detections that know their tracks as these, by ascending number.

    Args:
        frames: (F,) ascending frame numbers.
        detections: for each frame, its boxes, of each track at most one.
        empty: what a track without a box has by each name that the detections' `values` have.
    """
    numbers = sorted({d.track for frame in detections for d in frame if d.track is not None})
    place = {number: column for column, number in enumerate(numbers)}
    shape = (len(frames), len(numbers))
    boxes = np.full((*shape, 4), np.nan, np.float32)
    categories = np.full(len(numbers), Category.OBJECT, np.uint8)
    values = {name: np.broadcast_to(value, (*shape, *value.shape)).copy() for name, value in empty.items()}
    for row, frame in enumerate(detections):
        for detection in frame:
            assert detection.track is not None
            column = place[detection.track]
            boxes[row, column] = detection.box
            if detection.is_subject:
                categories[column] = Category.SUBJECT
            for name, value in values.items():
                value[row, column] = detection.values[name]
    return Tracks(frames=frames, boxes=boxes, categories=categories, values=values)


def link(frames: NDArray[np.int64], detections: Sequence[Sequence[Detection]]) -> Tracks:
    """Turn per-frame detections into tracks.

    A key that occurs at most once in every frame is one track. Detections that share a key (several hands) are linked
    over time by overlap: Hungarian assignment on IoU with each track's last box, distance breaking ties, so that there
    are as many tracks as boxes at once.

    Args:
        frames: (F,) ascending frame numbers.
        detections: for each frame, its boxes.
    """
    found: dict[str, dict[int, list[Detection]]] = {}  # key → row of its frame → what is there
    for row, frame in enumerate(detections):
        for detection in frame:
            found.setdefault(detection.key, {}).setdefault(row, []).append(detection)
    columns: list[FloatArray] = []
    categories: list[int] = []
    for _, of_key in sorted(found.items()):
        is_subject = any(d.is_subject for own in of_key.values() for d in own)
        boxes_of_row = {row: np.array([d.box for d in own], np.float32) for row, own in of_key.items()}
        linked = _link_one_key(boxes_of_row, len(detections))
        columns += linked
        categories += [int(Category.SUBJECT if is_subject else Category.OBJECT)] * len(linked)
    boxes = np.stack(columns, axis=1) if columns else np.zeros((len(frames), 0, 4), np.float32)
    return Tracks(frames=frames, boxes=boxes, categories=np.array(categories, np.uint8))


def _link_one_key(boxes_of_row: Mapping[int, FloatArray], num_rows: int) -> list[FloatArray]:
    """Link the boxes of one key, given by ascending rows where it has any; return one (F, 4) column a track."""
    columns: list[FloatArray] = []
    if all(len(boxes) == 1 for boxes in boxes_of_row.values()):
        columns.append(np.full((num_rows, 4), np.nan, np.float32))
        columns[0][list(boxes_of_row)] = np.concatenate(list(boxes_of_row.values()))
        return columns
    last: list[FloatArray] = []
    for row, boxes in boxes_of_row.items():
        free = set(range(len(boxes)))
        if columns:
            for track, box in _assign(np.stack(last), boxes):
                columns[track][row] = last[track] = boxes[box]
                free.discard(box)
        for box in sorted(free):
            column = np.full((num_rows, 4), np.nan, np.float32)
            column[row] = boxes[box]
            columns.append(column)
            last.append(boxes[box])
    return columns


def _assign(last: FloatArray, boxes: FloatArray) -> list[tuple[int, int]]:
    """Match track ends to boxes: highest total IoU, then the smallest distance between centres."""
    from scipy.optimize import linear_sum_assignment  # here, as the command line reads this file for its options

    distance = np.linalg.norm(
        (last[:, None, :2] + last[:, None, 2:] - boxes[None, :, :2] - boxes[None, :, 2:]), axis=-1
    )
    cost = -box_iou(last, boxes) + 1e-3 * distance / (1.0 + distance.max())
    rows, columns = linear_sum_assignment(cost)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
