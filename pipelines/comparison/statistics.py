"""Intervals and paired tests over clips. What belongs to one segment, as the persons of a clip, is drawn together.

A system trained S times has, for each clip, the share of its runs that are right: 0, 1/S, … 1. Accuracy is the mean of
these shares. Resampling n clips with replacement means drawing how often each distinct share occurs, a multinomial
draw, so that a hundred thousand resamples of fifty thousand clips cost a table of 100,000 × (S + 1) counts.

Mean average precision is no mean over clips: each resample counts every clip as often as it was drawn and ranks again.
That lifts it: a positive clip drawn twice is followed in the ranking by a positive, itself. Intervals therefore come
from resamples that `centred` has moved so that the measure is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ifcar.pipelines.labels.kinds import LabelKind

Segments = NDArray[np.int64] | None
"""(n,) numbers; clips of one segment are drawn together. None: each is its own."""
NUM_RESAMPLES = 100_000
NUM_MAP_RESAMPLES = 2_000
MAP_CHUNK = 200  # resamples ranked at once
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """How one system differs from another on the same clips.

    Args:
        difference: mean difference of accuracy, as a share.
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        p: two-sided p value, before any correction.
    """

    difference: float
    low: float
    high: float
    p: float


def bootstrap_means(values: NDArray[np.float64], segments: Segments = None, seed: int = 0) -> NDArray[np.float64]:
    """Return the means of `NUM_RESAMPLES` bootstrap resamples of (n,) values."""
    places, num_segments = _places(segments, len(values))
    totals = np.bincount(places, weights=values), np.bincount(places)
    pairs, counts = np.unique(np.stack(totals, axis=1), axis=0, return_counts=True)
    sums, sizes = pairs.T.copy()
    drawn = np.random.default_rng(seed).multinomial(num_segments, counts / num_segments, size=NUM_RESAMPLES)
    means: NDArray[np.float64] = drawn @ sums / (drawn @ sizes)
    return means


def _places(segments: Segments, n: int) -> tuple[NDArray[np.int64], int]:
    """Return each clip's place among the segments that are drawn, and how many these are."""
    names, places = np.unique(np.arange(n) if segments is None else segments, return_inverse=True)
    return places, len(names)


def bootstrap_interval(values: NDArray[np.float64], segments: Segments = None, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of (n,) values over resampled segments."""
    return percentile_interval(bootstrap_means(values, segments, seed))


def percentile_interval(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def centred(resampled: NDArray[np.float64], measured: float) -> NDArray[np.float64]:
    """Return (R,) resampled values, moved so that their mean is what the clips as they are measured."""
    moved: NDArray[np.float64] = resampled - resampled.mean() + measured
    return moved


def resampled_map(
    logits: NDArray[np.float32],
    labels: NDArray[Any],
    kind: LabelKind,
    segments: Segments = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return (R,) the mAP of bootstrap resamples of n clips; see `resampled_precisions`.

    A class without a positive draw is left out of that resample's mean, and a resample without any label counts as 0.
    """
    precisions = resampled_precisions(logits, labels, kind, segments, seed)
    drawn = np.isfinite(precisions)
    means: NDArray[np.float64] = np.where(drawn, precisions, 0).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1)
    return means


def resampled_precisions(
    logits: NDArray[np.float32],
    labels: NDArray[Any],
    kind: LabelKind,
    segments: Segments = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the average precision of each class in bootstrap resamples of n clips, the same for every system.

    A clip that was drawn w times counts w times at its rank: the average precision of a class is
    Σ_i w_i y_i P_i / Σ_i w_i y_i, where P_i is the share of positives among the draws down to clip i.

    Args:
        logits: (n, K).
        labels: (n, K); clips of which a class is unknown take no part in its ranking.
        kind: of the labels.
        segments: of the clips.
        seed: of the resampling.

    Returns:
        (`NUM_MAP_RESAMPLES`, K); NaN where no clip of the class was drawn.
    """
    shows = labels > 0
    places_of, n = _places(segments, len(labels))
    order = kind.rankings(logits, labels)
    shown = np.flatnonzero(shows.any(axis=0))
    rng = np.random.default_rng(seed)
    found = np.full((NUM_MAP_RESAMPLES, labels.shape[1]), np.nan)
    for start in range(0, NUM_MAP_RESAMPLES, MAP_CHUNK):
        size = min(MAP_CHUNK, NUM_MAP_RESAMPLES - start)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=size)[:, places_of]
        for k in shown:
            ranked = drawn[:, order[k]]
            places = np.flatnonzero(shows[order[k], k])
            hits = ranked[:, places]
            positives = hits.sum(axis=1)
            precision = hits.cumsum(axis=1) / np.maximum(ranked.cumsum(axis=1)[:, places], 1)
            values = (hits * precision).sum(axis=1) / np.maximum(positives, 1)
            found[start : start + size, k] = np.where(positives > 0, values, np.nan)
    return found


def paired_bootstrap(
    ours: NDArray[np.float64], other: NDArray[np.float64], segments: Segments = None, seed: int = 0
) -> PairedTest:
    """Test whether two systems differ, by resampling the clips that both were tested on.

    Args:
        ours: (n,) share of the first system's runs that are right, clip by clip.
        other: (n,) the same of the second system.
        segments: of the clips.
        seed: of the resampling.

    Returns:
        The difference, its interval, and p = 2 · min(P(mean ≤ 0), P(mean ≥ 0)) over resamples, each share counted with
        one added resample so that p is never 0.
    """
    differences = ours - other
    return difference_test(float(differences.mean()), bootstrap_means(differences, segments, seed))


def difference_test(difference: float, resampled: NDArray[np.float64]) -> PairedTest:
    """Return the test of a difference from (R,) bootstrap resamples of it; see `paired_bootstrap`."""
    low, high = percentile_interval(resampled)
    below, above = (float((c.sum() + 1) / (len(resampled) + 1)) for c in (resampled <= 0, resampled >= 0))
    return PairedTest(difference=difference, low=low, high=high, p=min(1.0, 2 * min(below, above)))


def mcnemar(ours: NDArray[np.float64], other: NDArray[np.float64]) -> PairedTest:
    """Test whether two single runs differ, by the exact McNemar test; the interval is the paired bootstrap's.

    Args:
        ours: (n,) 1 where the first run is right, else 0.
        other: (n,) the same of the second run.

    Raises:
        ValueError: a value is neither 0 nor 1 (several seeds).
    """
    if not (np.isin(ours, (0, 1)).all() and np.isin(other, (0, 1)).all()):
        raise ValueError("McNemar's test takes one run a system; use the paired bootstrap for several seeds")
    won, lost = int(((ours == 1) & (other == 0)).sum()), int(((ours == 0) & (other == 1)).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    interval = paired_bootstrap(ours, other)
    return PairedTest(difference=interval.difference, low=interval.low, high=interval.high, p=p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down corrected p values, in the same order: they control the family-wise error."""
    order = np.argsort(p_values, kind="stable")
    corrected, highest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = highest
    return corrected
