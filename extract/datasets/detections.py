"""A detector's boxes and masks, frame by frame: no tracks, so that slot k holds whatever is k-th in each frame.

Persons come first, then everything else, each by falling score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        classes: (n,) numbers of `ifcar.extract.coco.CLASSES`.
        masks: (n, h, w), True where the object is.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int16]
    masks: NDArray[np.bool_]


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
