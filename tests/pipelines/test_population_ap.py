"""Average precision among endlessly many clips: by hand, against literal loops, and simulated where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from ifcar.pipelines.comparison.statistics import Jackknifed, holm, paired_bootstrap, population_map
from ifcar.pipelines.labels.kinds import MultiLabel
from ifcar.pipelines.labels.population_ap import population_precision, precisions_without

KIND = MultiLabel(unlabelled="negative")


def population_ap(share: float, distance: float) -> float:
    """Return the average precision of scores N(distance, 1) and N(0, 1) for this share of positives, numerically."""
    found = (np.arange(20_000) + 0.5) / 20_000
    false = norm.sf(norm.isf(found) + distance)
    return float(np.mean(share * found / (share * found + (1 - share) * false)))


def drawn_clips(
    rng: np.random.Generator, n: int, num_classes: int, share: float, distances: tuple[float, ...]
) -> tuple[list[NDArray[np.float32]], NDArray[np.int8]]:
    """Return the scores of systems whose errors agree in part, and labels that come together more often than by chance.

    Clips differ in what they show and in how high all their scores are, as real ones do.
    """
    latent = np.sqrt(0.1) * rng.normal(size=(n, 1)) + np.sqrt(0.9) * rng.normal(size=(n, num_classes))
    labels = (latent > norm.isf(share)).astype(np.int8)
    labels[0, ~labels.any(axis=0)] = 1
    shared = np.sqrt(0.2) * rng.normal(size=(n, 1)) + np.sqrt(0.3) * rng.normal(size=(n, num_classes))
    own = [np.sqrt(0.5) * rng.normal(size=labels.shape) for _ in distances]
    scores = [d * labels + shared + noise for d, noise in zip(distances, own, strict=True)]
    return [s.astype(np.float32) for s in scores], labels


def test_estimate_by_hand() -> None:
    # positives at ranks 1, 3, 4: above the first is nothing, halfway between 1 and what rank 2 says (0): ½;
    # then 1 of 2 and 2 of 3 others are positives; of 3 positives 2 are others: 3q / (2 + q)
    by_hand = np.mean([3 * q / (2 + q) for q in (1 / 2, 1 / 2, 2 / 3)])
    assert population_precision(np.array([True, False, True, True, False])) == pytest.approx(by_hand)
    assert population_precision(np.ones(4, np.bool_)) == 1.0
    assert np.isnan(population_precision(np.zeros(4, np.bool_)))
    # one positive behind two clips, wherever among all positives it is: ∫ u / (u + 2) du
    u = (np.arange(100_000) + 0.5) / 100_000
    assert population_precision(np.array([False, False, True])) == pytest.approx(float(np.mean(u / (u + 2))))


@pytest.mark.slow
@given(st.lists(st.booleans(), min_size=1, max_size=14))
def test_estimates_without_a_clip_are_those_of_the_other_clips(ranked: list[bool]) -> None:
    expected = [population_precision(np.delete(np.array(ranked), place)) for place in range(len(ranked))]
    np.testing.assert_allclose(precisions_without(np.array(ranked)), expected, rtol=1e-12)


def test_map_and_its_influences_are_those_of_a_loop_that_leaves_out_every_clip() -> None:
    rng = np.random.default_rng(0)
    (logits,), labels = drawn_clips(rng, 25, 4, 0.2, (1.0,))
    labels[:, 3] = 0
    labels[7, 3], labels[9, 1] = 1, -1  # a class of one clip, which is gone without it, and an unknown label
    found = population_map(logits, labels, KIND)
    keep = ~np.eye(25, dtype=np.bool_)
    without = np.array([population_map(logits[k], labels[k], KIND).value for k in keep])
    np.testing.assert_allclose(found.influences, 24 * (found.value - without), atol=1e-12)
    known = np.arange(25) != 9  # a clip of which the class is unknown changes nothing of that class
    own = [population_map(logits[rows, 1:2], labels[rows, 1:2], KIND).value for rows in (slice(None), known)]
    assert own[0] == own[1]


SIZES = [
    (100, 6, 250),
    pytest.param(100, 18, 150, marks=pytest.mark.slow),
    pytest.param(100, 157, 60, marks=pytest.mark.slow),
    (1000, 6, 100),
    pytest.param(1000, 157, 30, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize(("n", "num_classes", "repeats"), SIZES)
def test_interval_covers_the_map_of_endlessly_many_clips(n: int, num_classes: int, repeats: int, share: float) -> None:
    """At least 90 % of the intervals hold it, two binomial errors allowed; the sample's own mAP is above."""
    rng = np.random.default_rng([n, num_classes])
    known, covered, measured = population_ap(share, 1.2), 0, []
    for _ in range(repeats):
        (logits,), labels = drawn_clips(rng, n, num_classes, share, (1.2,))
        low, high = population_map(logits, labels, KIND).interval()
        covered += low <= known <= high
        measured.append(KIND.measures(logits, labels)["map"])
    assert covered / repeats >= 0.9 - 2 * np.sqrt(0.09 / repeats)
    assert np.mean(measured) > known


def test_interval_over_subjects_covers_where_one_over_clips_does_not() -> None:
    """Scores of a subject's 20 clips are right or wrong together; the mAP of many subjects is drawn, not known."""

    def clips(rng: np.random.Generator, subjects: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        labels = (rng.random((20 * subjects, 6)) < 0.3).astype(np.int8)
        skill = np.repeat(rng.normal(1.2, 1.0, (subjects, 6)), 20, axis=0)
        return (rng.normal(size=labels.shape) + skill * labels).astype(np.float32), labels

    rng = np.random.default_rng(2)
    known = KIND.measures(*clips(rng, 4000))["map"]
    covered = np.zeros(2)
    for _ in range(200):
        found = population_map(*clips(rng, 12), KIND)
        intervals = (found.interval(np.repeat(np.arange(12), 20)), found.interval())
        covered += [low <= known <= high for low, high in intervals]
    assert covered[0] / 200 >= 0.9 - 2 * np.sqrt(0.09 / 200) and covered[1] / 200 < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.12, 0.3])
def test_equal_systems_differ_in_one_of_twenty_tests_and_unequal_ones_in_most(share: float) -> None:
    """n = 100, K = 6: size at most 0.06, two binomial errors allowed, and power."""
    rng, repeats = np.random.default_rng(3), 250
    found = np.zeros((2, repeats))
    for place in range(repeats):
        (first, equal, better), labels = drawn_clips(rng, 100, 6, share, (1.0, 1.0, 1.6))
        ours, *others = (population_map(logits, labels, KIND) for logits in (first, equal, better))
        tests = [(other - ours).test() for other in others]
        found[:, place] = [test.p for test in tests]
        assert all((test.low > 0 or test.high < 0) == (test.p < 0.05) for test in tests)
    assert (found[0] < 0.05).mean() <= 0.06 + 2 * np.sqrt(0.06 * 0.94 / repeats)
    assert (found[1] < 0.05).mean() >= 0.8


def test_one_segment_says_nothing_and_few_cannot_say_much() -> None:
    rng = np.random.default_rng(4)
    (ours, other), labels = drawn_clips(rng, 40, 3, 0.3, (3.0, 0.0))
    difference = population_map(ours, labels, KIND) - population_map(other, labels, KIND)
    assert difference.test().p < 0.001 and difference.test(np.repeat([0, 1, 2, 3], 10)).p >= 0.125
    alone = difference.test(np.zeros(40, np.int64))
    assert (alone.low, alone.high, alone.p) == (-1.0, 1.0, 1.0)
    assert (difference - difference).test().p == 1.0
    one = Jackknifed(value=0.4, influences=np.array([0.0, np.nan]))  # the only clip of the only class
    assert one.interval() == (0.0, 1.0)
    right, wrong = np.ones(40), np.zeros(40)
    assert paired_bootstrap(right, wrong, np.repeat([0, 1, 2, 3], 10)).p == 0.125
    assert paired_bootstrap(right, wrong, np.zeros(40, np.int64)).p == 1.0


def test_a_clear_difference_stays_below_one_in_twenty_after_holm_in_a_grid_of_a_thousand() -> None:
    rng = np.random.default_rng(5)
    (ours, other), labels = drawn_clips(rng, 150, 6, 0.3, (3.0, 0.0))
    ranked = (population_map(ours, labels, KIND) - population_map(other, labels, KIND)).test().p
    right = paired_bootstrap((rng.random(150) < 0.9).astype(float), (rng.random(150) < 0.2).astype(float)).p
    for p in (ranked, right):
        assert holm([p, *[0.5] * 999])[0] < 0.05
