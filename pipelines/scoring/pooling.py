"""How the views of a clip become one score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ifcar.pipelines.labels.contract import LabelKind

Pool = Literal["mean", "max", "sum"]


def pool_views(
    logits: NDArray[np.float32], clip_of_row: NDArray[np.int64], num_clips: int, pool: Pool, kind: LabelKind
) -> NDArray[np.float32]:
    """Return one line of logits a clip from those of its views.

    Args:
        logits: (rows, K), of every view.
        clip_of_row: (rows,) ascending; every clip has at least one row.
        num_clips: n.
        pool: "mean" of the logits; "max", the highest probability of each class (Wang and Gupta 2018, §6); "sum" of the
            probabilities, given as the logits of their mean, which ranks the same.
        kind: of the labels; makes probabilities of logits.

    Returns:
        (n, K).
    """
    counts = np.bincount(clip_of_row, minlength=num_clips)[:, None]
    total = np.zeros((num_clips, logits.shape[1]), np.float64)
    if pool == "max":
        firsts = np.flatnonzero(np.diff(clip_of_row, prepend=-1))
        highest: NDArray[np.float64] = np.maximum.reduceat(kind.comparable(logits), firsts)
        return highest.astype(np.float32)
    np.add.at(total, clip_of_row, logits if pool == "mean" else kind.probabilities(logits))
    if pool == "mean":
        return np.asarray(total / counts).astype(np.float32)
    return kind.logits_of(total / counts)
