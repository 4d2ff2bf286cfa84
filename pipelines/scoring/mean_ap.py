"""Average precision of ranked clips, and its mean over classes.

The definition is that of Charades' published evaluation: the clips are ranked by a class's score, and the precision at
the rank of each of its positive clips is averaged; nothing is interpolated. Equal scores keep the order of the clips
(a stable sort, as MATLAB's). Clips without any label come last in every ranking whatever their scores. The mean runs
over the classes that have a positive clip; Charades' test part has one of every class. Without ties and unlabelled
clips it equals scikit-learn's `average_precision_score`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError

FloatArray = NDArray[np.float64]


def class_precisions(logits: NDArray[Any], labels: NDArray[Any]) -> FloatArray:
    """Return the average precision of every class.

    Args:
        logits: (n, K) scores; higher is more probable.
        labels: (n, K) 1 where the clip shows the class.

    Returns:
        (K,); NaN where no clip shows the class.
    """
    shows: NDArray[np.bool_] = labels.astype(np.bool_)
    found = np.full(shows.shape[1], np.nan)
    for k, order in enumerate(rankings(logits, labels)):
        places = np.flatnonzero(shows[order, k])
        if len(places):
            found[k] = float(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
    return found


def rankings(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return (K, n) the clips by falling score of each class, those without any label last."""
    scores = np.where(np.asarray(labels.any(axis=1))[:, None], logits.astype(np.float64), -np.inf)
    order: NDArray[np.int64] = np.argsort(-scores, axis=0, kind="stable").T
    return order


def mean_average_precision(logits: NDArray[Any], labels: NDArray[Any], *, weighted: bool = False) -> float:
    """Return the mean of `class_precisions` over the classes that a clip shows.

    Args:
        logits: (n, K).
        labels: (n, K).
        weighted: weigh each class by the number of its clips.

    Raises:
        InputError: no clip has a label, so that there is nothing to average.
    """
    precisions = class_precisions(logits, labels)
    counts: NDArray[np.int64] = labels.astype(np.int64).sum(axis=0)
    shown = counts > 0
    if not shown.any():
        raise InputError(f"none of {len(labels)} clips has a label; mAP needs at least one")
    return float(np.average(precisions[shown], weights=counts[shown] if weighted else None))
