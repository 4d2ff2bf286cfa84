"""Intervals and paired tests over clips. What belongs to one segment, as the persons of a clip, is drawn together.

A system trained S times has, for each clip, the share of its runs that are right: 0, 1/S, … 1. Accuracy is the mean of
these shares. Resampling n clips with replacement means drawing how often each distinct share occurs, a multinomial
draw, so that a hundred thousand resamples of fifty thousand clips cost a table of 100,000 × (S + 1) counts. A resample
of G segments spreads by √((G − 1)/G) too little and knows nothing of Student's t; both are made good, see `_widening`,
which matters where G is small.

Mean average precision is no mean over clips, and resampling lifts it: a positive clip drawn twice is followed in the
ranking by a positive, itself. Its intervals are for the mAP that endlessly many clips of the kind would give, see
`ifcar.pipelines.labels.population_ap`; the error of that estimate is the jackknife's over segments, with Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri, stdtr, stdtrit  # a third of scipy.stats's time to import

from ifcar.pipelines.labels.contract import LabelKind
from ifcar.pipelines.labels.population_ap import population_precision, precisions_without

FloatArray = NDArray[np.float64]
Segments = NDArray[np.int64] | None
"""(n,) numbers; clips of one segment are drawn together. None: each is its own."""
NUM_RESAMPLES = 100_000  # the smallest p is 2e-5, which Holm's correction keeps below 0.05 in up to 2,500 comparisons
MOST_COUNTS = 10_000_000  # drawn at once
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


def bootstrap_means(values: FloatArray, segments: Segments = None, seed: int = 0) -> FloatArray:
    """Return the means of `NUM_RESAMPLES` bootstrap resamples of (n,) values, spread as `_widening` says."""
    places, num_segments = _places(segments, len(values))
    totals = np.bincount(places, weights=values), np.bincount(places)
    pairs, counts = np.unique(np.stack(totals, axis=1), axis=0, return_counts=True)
    sums, sizes = pairs.T.copy()
    rng = np.random.default_rng(seed)
    means = np.empty(NUM_RESAMPLES)
    step = max(1, MOST_COUNTS // len(counts))
    for start in range(0, NUM_RESAMPLES, step):
        part = means[start : start + step]
        drawn = rng.multinomial(num_segments, counts / num_segments, size=len(part))
        part[:] = drawn @ sums / (drawn @ sizes)
    centre = float(values.mean())
    widened: FloatArray = centre + _widening(num_segments) * (means - centre)
    return widened


def _widening(num_segments: int) -> float:
    """Return how much wider than its resamples an interval over so few segments has to be; 1.01 at 150, 1.9 at 4."""
    ratio = stdtrit(num_segments - 1, 0.5 + CONFIDENCE / 2) / ndtri(0.5 + CONFIDENCE / 2)
    return float(ratio * np.sqrt(num_segments / (num_segments - 1)))


def _places(segments: Segments, n: int) -> tuple[NDArray[np.int64], int]:
    """Return each clip's place among the segments that are drawn, and how many these are."""
    names, places = np.unique(np.arange(n) if segments is None else segments, return_inverse=True)
    return places, len(names)


def bootstrap_interval(values: FloatArray, segments: Segments = None) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of (n,) shares over resampled segments; 0 … 1 for one segment."""
    if _places(segments, len(values))[1] < 2:
        return 0.0, 1.0
    low, high = percentile_interval(bootstrap_means(values, segments))
    return max(0.0, low), min(1.0, high)


def unpaired_interval(
    ours: FloatArray, other: FloatArray, our_segments: Segments = None, other_segments: Segments = None
) -> tuple[float, float]:
    """Return the 95 % interval of the difference in the mean of shares of other clips; −1 … 1 for one segment."""
    samples = ((ours, our_segments), (other, other_segments))
    if any(_places(segments, len(values))[1] < 2 for values, segments in samples):
        return -1.0, 1.0
    means = [bootstrap_means(values, segments, seed) for seed, (values, segments) in enumerate(samples)]
    low, high = percentile_interval(means[0] - means[1])
    return max(-1.0, low), min(1.0, high)


def percentile_interval(resampled: FloatArray) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap(ours: FloatArray, other: FloatArray, segments: Segments = None) -> PairedTest:
    """Test whether two systems differ, by resampling the clips that both were tested on.

    Args:
        ours: (n,) share of the first system's runs that are right, clip by clip.
        other: (n,) the same of the second system.
        segments: of the clips.

    Returns:
        The difference, its interval, and p = 2 · min(P(mean ≤ 0), P(mean ≥ 0)) over resamples, each share counted with
        one added resample, and never below `smallest_p`. One segment says nothing: −1 … 1, and p = 1.
    """
    differences = ours - other
    difference = float(differences.mean())
    places, num_segments = _places(segments, len(differences))
    if num_segments < 2:
        return PairedTest(difference=difference, low=-1.0, high=1.0, p=1.0)
    resampled = bootstrap_means(differences, segments)
    low, high = percentile_interval(resampled)
    below, above = (float((c.sum() + 1) / (len(resampled) + 1)) for c in (resampled <= 0, resampled >= 0))
    p = max(2 * min(below, above), smallest_p(np.bincount(places, weights=differences)))
    return PairedTest(difference=difference, low=max(-1.0, low), high=min(1.0, high), p=min(1.0, p))


def smallest_p(differences: NDArray[Any]) -> float:
    """Return the least two-sided p that the signs of so many independent differences can give, at most 1.

    D differences that are not 0 all have one sign with a chance of 2 · ½^D where each sign is as likely as the other.
    """
    return float(min(1.0, 2.0 * 0.5 ** np.count_nonzero(differences)))


@dataclass(frozen=True, kw_only=True)
class Jackknifed:
    """A measure estimated from n clips, and what each of them says of it.

    Args:
        value: the estimate.
        influences: (n,) n − 1 times by how much the estimate is higher than without the clip; NaN where there is none
            without it.
    """

    value: float
    influences: FloatArray

    def __sub__(self, other: Jackknifed) -> Jackknifed:
        return Jackknifed(value=self.value - other.value, influences=self.influences - other.influences)

    @classmethod
    def mean(cls, estimates: Sequence[Jackknifed]) -> Jackknifed:
        """Return the mean of several, as of the runs of a system."""
        influences = np.mean([e.influences for e in estimates], axis=0)
        return cls(value=float(np.mean([e.value for e in estimates])), influences=influences)

    def interval(self, segments: Segments = None, lowest: float = 0.0) -> tuple[float, float]:
        """Return the 95 % interval over segments, between `lowest` and 1; all of that where they say nothing."""
        error, num_segments = self._error(segments)
        if not np.isfinite(error):
            return lowest, 1.0
        reach = float(stdtrit(num_segments - 1, 0.5 + CONFIDENCE / 2)) * error
        return max(lowest, self.value - reach), min(1.0, self.value + reach)

    def test(self, segments: Segments = None) -> PairedTest:
        """Test a difference of two estimates against 0 by Student's t over segments; see `smallest_p`."""
        low, high = self.interval(segments, lowest=-1.0)
        error, num_segments = self._error(segments)
        if self.value == 0 or not np.isfinite(error):
            return PairedTest(difference=self.value, low=low, high=high, p=1.0)
        p = 2 * float(stdtr(num_segments - 1, -abs(self.value) / error)) if error else 0.0
        least = smallest_p(np.bincount(_places(segments, len(self.influences))[0], weights=self.influences))
        return PairedTest(difference=self.value, low=low, high=high, p=max(p, least))

    def _error(self, segments: Segments) -> tuple[float, int]:
        """Return the standard error over segments, NaN where they say nothing of it, and their number."""
        places, num_segments = _places(segments, len(self.influences))
        if num_segments < 2:
            return float("nan"), num_segments
        sums = np.bincount(places, weights=self.influences)
        return float(np.sqrt(sums.var(ddof=1) * num_segments) / len(self.influences)), num_segments


def population_map(logits: NDArray[np.float32], labels: NDArray[Any], kind: LabelKind) -> Jackknifed:
    """Return the mAP that endlessly many such clips would give, over the classes that one of these clips shows.

    Args:
        logits: (n, K).
        labels: (n, K); clips of which a class is unknown take no part in its ranking.
        kind: of the labels.
    """
    values, without = _precisions(logits, labels, kind)
    shown = np.isfinite(values)
    left = np.isfinite(without)
    num = left.sum(axis=1)
    means = np.where(left, without, 0).sum(axis=1) / np.maximum(num, 1)
    value = float(values[shown].mean())
    return Jackknifed(value=value, influences=(len(labels) - 1) * (value - np.where(num > 0, means, np.nan)))


def population_precisions(logits: NDArray[np.float32], labels: NDArray[Any], kind: LabelKind) -> dict[int, Jackknifed]:
    """Return, for each class that a clip shows, the average precision that endlessly many such clips would give."""
    values, without = _precisions(logits, labels, kind)
    influences = (len(labels) - 1) * (values - without)
    shown = np.flatnonzero(np.isfinite(values))
    return {int(k): Jackknifed(value=float(values[k]), influences=influences[:, k]) for k in shown}


def _precisions(logits: NDArray[np.float32], labels: NDArray[Any], kind: LabelKind) -> tuple[FloatArray, FloatArray]:
    """Return the estimate (K,) of each class and (n, K) those without each clip, NaN where there is none."""
    values, without = np.full(labels.shape[1], np.nan), np.full(labels.shape, np.nan)
    for k, order in enumerate(kind.rankings(logits, labels)):
        ranked = labels[order, k] > 0
        values[k], without[order, k] = population_precision(ranked), precisions_without(ranked)
    return values, without


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
    p = min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))
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
