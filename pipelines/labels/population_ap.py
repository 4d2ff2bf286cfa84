"""Average precision among endlessly many clips, estimated from n of them, and what each clip says of it.

The precision at a positive clip of the sample counts the clip itself as a hit, so that the average precision of few
clips lies above that of many: with 12 positives among 100 by 0.04 where labels are guessed. What is estimated here is
the average precision of the same model among all clips of the kind. At each positive clip it asks the *other* clips:

    q = share of positives among the other clips that score higher
    p = m q / (m − 1 + q), for m positives were seen and m − 1 of them are others

and the estimate is the mean of p over the m positives. Two places need a rule. Above the clip that scores highest there
is no other: p lies between 1 and what the next clip says, and is taken halfway. A class with one positive clip has no
other positive: the share of all positives that score higher than it is then uniform on 0 … 1, and p is the mean over
that, 1 − b ln(1 + 1/b) with b clips above (at least ½).

Simulated, 95 % intervals around it hold the average precision that is known in 0.90 to 0.97 of the cases, with 100 or
1,000 clips, 6 to 157 classes, and 5 to 300 positives of each (tests/pipelines/test_population_ap.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
LEAST_ABOVE = 0.5


def population_precision(ranked: NDArray[np.bool_]) -> float:
    """Return the estimate for one class.

    Args:
        ranked: (n,) True where the clip at this rank shows the class.

    Returns:
        A share; NaN where no clip shows the class.
    """
    above = np.flatnonzero(ranked)
    if not len(above):
        return float("nan")
    return float(_at_positives(np.arange(len(above)), above, len(above), _highest(ranked)).mean())


def precisions_without(ranked: NDArray[np.bool_]) -> FloatArray:
    """Return (n,) the estimate from all clips but the one at each rank; NaN where no other clip shows the class.

    Taking a clip away changes what counts behind it, and for a positive the number m. Sums from both ends give all n
    estimates in one pass; the first two ranks, which the rule for the highest clip looks at, are taken away in fact.
    """
    above = np.flatnonzero(ranked)
    hits, num, top = np.arange(len(above)), len(above), _highest(ranked)
    ahead = [_sums(_at_positives(hits, above, m, top)) for m in (num, num - 1)]
    behind = [
        _sums(_at_positives(h, above - 1, m, top)[::-1])[::-1]
        for h, m in ((hits, num), (np.maximum(hits - 1, 0), num - 1))
    ]
    before = np.searchsorted(above, np.arange(len(ranked)))
    found = np.where(ranked, ahead[1][before] + behind[1][before + ranked], ahead[0][before] + behind[0][before])
    left = num - ranked
    estimates: FloatArray = np.where(left > 0, found / np.maximum(left, 1), np.nan)
    for place in range(min(2, len(ranked))):
        estimates[place] = population_precision(np.delete(ranked, place))
    return estimates


def _at_positives(hits: NDArray[np.int64], above: NDArray[np.int64], num: int, top: float) -> FloatArray:
    """Return the estimated precision at each positive, from other positives and other clips above it."""
    if num < 2:
        clips = np.maximum(above, LEAST_ABOVE)
        single: FloatArray = 1 - clips * np.log1p(1 / clips)
        return single
    share = np.where(above > 0, hits / np.maximum(above, 1), top)
    precision: FloatArray = num * share / (num - 1 + share)
    return precision


def _highest(ranked: NDArray[np.bool_]) -> float:
    """Return the precision at the highest clip where it is a positive: between 1 and the next clip's label."""
    return float(ranked[:2].mean())


def _sums(values: FloatArray) -> FloatArray:
    """Return (m + 1,) the sum of the first 0, 1, … m values."""
    return np.concatenate([[0.0], np.cumsum(values)])
