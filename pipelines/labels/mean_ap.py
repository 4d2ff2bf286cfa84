"""Average precision of ranked clips, and its mean over classes.

The definition is that of Charades' published evaluation: the clips are ranked by a class's score, and the precision at
the rank of each of its positive clips is averaged; nothing is interpolated. Equal scores keep the order of the clips
(a stable sort, as MATLAB's). The mean runs over the classes that have a positive clip; Charades' test part has one of
every class. A clip of which a class is unknown (label −1) takes no part in that class's ranking. Clips without any
label come last in every ranking, whatever their scores, where `unlabelled` is "last", as in Charades' evaluation; as a
"negative" they rank by score. Without ties and unlabelled clips this equals scikit-learn's `average_precision_score`,
and without ties always where unlabelled clips are negatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import Unlabelled
from ifcar.errors import InputError

FloatArray = NDArray[np.float64]


def class_precisions(logits: NDArray[Any], labels: NDArray[Any], unlabelled: Unlabelled = "last") -> FloatArray:
    """Return the average precision of every class.

    Args:
        logits: (n, K) scores; higher is more probable.
        labels: (n, K) 1 where the clip shows the class, 0 where not, −1 where that is unknown.
        unlabelled: where clips without any label rank.

    Returns:
        (K,); NaN where no clip shows the class.
    """
    shows: NDArray[np.bool_] = labels > 0
    found = np.full(shows.shape[1], np.nan)
    for k, order in enumerate(rankings(logits, labels, unlabelled)):
        places = np.flatnonzero(shows[order, k])
        if len(places):
            found[k] = float(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
    return found


def rankings(logits: NDArray[Any], labels: NDArray[Any], unlabelled: Unlabelled = "last") -> NDArray[np.int64]:
    """Return (K, n) the clips by falling score of each class.

    Those of which the class is unknown come behind all others: behind the last positive, where a clip changes no
    precision, it is as if it were not there.
    """
    ranked = labels >= 0
    if unlabelled == "last":
        ranked = ranked & (labels > 0).any(axis=1, keepdims=True)
    order: NDArray[np.int64] = np.argsort(
        -np.where(ranked, logits.astype(np.float64), -np.inf), axis=0, kind="stable"
    ).T
    return order


def mean_average_precision(
    logits: NDArray[Any], labels: NDArray[Any], unlabelled: Unlabelled = "last", *, weighted: bool = False
) -> float:
    """Return the mean of `class_precisions` over the classes that a clip shows.

    Args:
        logits: (n, K).
        labels: (n, K).
        unlabelled: where clips without any label rank.
        weighted: weigh each class by the number of its clips.

    Raises:
        InputError: no clip has a label, so that there is nothing to average.
    """
    precisions = class_precisions(logits, labels, unlabelled)
    counts: NDArray[np.int64] = (labels > 0).sum(axis=0)
    shown = counts > 0
    if not shown.any():
        raise InputError(f"none of {len(labels)} clips has a label; mAP needs at least one")
    return float(np.average(precisions[shown], weights=counts[shown] if weighted else None))


def clip_precisions(logits: NDArray[Any], labels: NDArray[Any]) -> FloatArray:
    """Return (n,) the average precision of each clip's ranking of its known classes; 0 for a clip without labels.

    At the rank of each label, the share of labels among the classes that score at least as high; the mean over labels.
    """
    found = np.zeros(len(labels))
    for place, (scores, of_clip) in enumerate(zip(logits, labels, strict=True)):
        own, known = scores[of_clip > 0], scores[of_clip >= 0]
        if len(own):
            found[place] = np.mean([(own >= s).sum() / (known >= s).sum() for s in own])
    return found
