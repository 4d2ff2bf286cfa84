"""A detector's boxes and masks, frame by frame, and these as slots without tracks.

Slot k then holds what is k-th in a frame: persons come first, then everything else, each by falling score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.schema import Category
from ifcar.extract.coco import PERSON
from ifcar.extract.tracks import Tracks


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameDetections:
    """What a detector found in one frame.

    Args:
        boxes: (n, 4) x1, y1, x2, y2.
        scores: (n,).
        classes: (n,) numbers of the detector's classes; VLOG's are `ifcar.extract.coco.CLASSES`.
        masks: (n, h, w) over the whole frame, True where the object is; (n, 0, 0) of a detector that gives none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int16]
    masks: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        boxes: NDArray[Any],
        scores: NDArray[Any],
        classes: NDArray[Any],
        masks: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Return these detections, of any numeric type."""
        return cls(
            boxes=boxes.astype(np.float32),
            scores=scores.astype(np.float32),
            classes=classes.astype(np.int16),
            masks=np.zeros((len(boxes), 0, 0), np.bool_) if masks is None else masks,
        )

    @classmethod
    def none(cls) -> Self:
        """Return the detections of a frame without any."""
        return cls.of(np.zeros((0, 4)), np.zeros(0), np.zeros(0))

    def at(self, places: NDArray[Any]) -> Self:
        """Return those at these places, or those where a mask (n,) is True."""
        return type(self)(
            boxes=self.boxes[places],
            scores=self.scores[places],
            classes=self.classes[places],
            masks=self.masks[places],
        )


def slots_of_detections(frames: NDArray[np.int64], found: Sequence[FrameDetections]) -> Tracks:
    """Return detections as the slots of each frame, with the arrays `masks` and `object_classes`.

    Args:
        frames: (F,) ascending frame numbers.
        found: of each frame.
    """
    most = max((len(frame.classes) for frame in found), default=0)
    sides = next((frame.masks.shape[1:] for frame in found if len(frame.masks)), (1, 1))
    boxes = np.full((len(frames), most, 4), np.nan, np.float32)
    categories = np.zeros((len(frames), most), np.uint8)
    classes = np.full((len(frames), most), -1, np.int16)
    masks = np.zeros((len(frames), most, *sides), np.uint8)
    for place, frame in enumerate(found):
        is_object = frame.classes != PERSON
        order = np.lexsort((-frame.scores, is_object))
        own = (place, slice(len(order)))
        boxes[own], classes[own] = frame.boxes[order], frame.classes[order]
        categories[own] = np.where(is_object[order], Category.OBJECT, Category.SUBJECT)
        masks[own] = frame.masks[order] * np.uint8(255)
    values = {"masks": masks, "object_classes": classes}
    return Tracks(frames=frames, boxes=boxes, categories=categories, values=values)
