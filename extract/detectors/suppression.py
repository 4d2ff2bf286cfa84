"""Which of several boxes of one thing is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.extract.tracks import box_iou


def suppressed(boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any], overlap: float) -> NDArray[np.int64]:
    """Return the places of the boxes that are kept, by falling score, the first of equal ones first.

    A box is left out where it overlaps one of its class that is kept by more than `overlap`.

    Args:
        boxes: (n, 4) x1, y1, x2, y2.
        scores: (n,).
        classes: (n,).
        overlap: intersection over union.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        same = box_iou(boxes[best : best + 1], boxes[rest])[0] > overlap
        order = rest[~(same & (classes[rest] == classes[best]))]
    return np.array(kept, np.int64)
