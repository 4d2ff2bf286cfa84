"""Kinds of labels against literal loops, and what is not known, which counts nowhere."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import InputError
from ifcar.heads.batch import HeadOutput, Task
from ifcar.heads.ccau import CCAU
from ifcar.heads.ccau_config import CCAUConfig
from ifcar.pipelines.comparison.statistics import population_map
from ifcar.pipelines.labels.kinds import MultiLabel, SingleLabel
from ifcar.pipelines.stacks.objectives import Labels, check_smoothing, losses_of


def drawn(seed: int, n: int = 30, num_classes: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return logits and labels of which some are 1, some 0 and some unknown, with two positives of every class."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, num_classes)).astype(np.float32)
    labels = rng.choice([-1, 0, 0, 1], size=(n, num_classes)).astype(np.int8)
    labels[:2] = 1
    return logits, labels


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_average_precision_is_scikit_learns_over_the_known_clips_of_each_class(seed: int) -> None:
    logits, labels = drawn(seed)
    found = MultiLabel(unlabelled="negative").class_scores(logits, labels)
    for k in range(labels.shape[1]):
        known = labels[:, k] >= 0
        assert found[k] == pytest.approx(average_precision_score(labels[known, k], logits[known, k]))


def test_unlabelled_clips_rank_last_or_where_they_score() -> None:
    logits = np.array([[3.0], [2.0], [1.0]], np.float32)
    labels = np.array([[0], [1], [1]], np.int8)
    unlabelled_first = MultiLabel(unlabelled="negative").class_scores(logits, labels)
    assert unlabelled_first == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert MultiLabel(unlabelled="last").class_scores(logits, labels) == pytest.approx(1.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_unknown_labels_are_left_out_of_the_loss(smoothing: float) -> None:
    logits, labels = drawn(1)
    labels[5] = -1  # a clip of which nothing is known
    batch = (torch.from_numpy(logits)[None], torch.from_numpy(labels)[None])
    found = MultiLabel().class_loss(*batch, label_smoothing=smoothing)
    everything, plain = [], []
    for row, of_clip in zip(logits, labels, strict=True):
        own = []
        for score, label in zip(row, of_clip, strict=True):
            if label >= 0:
                p, t = 1 / (1 + math.exp(-score)), label * (1 - smoothing) + smoothing / 2
                own.append(-(t * math.log(p) + (1 - t) * math.log(1 - p)))
                plain.append(-(label * math.log(p) + (1 - label) * math.log(1 - p)))
        everything.append(sum(own) / max(1, len(own)))
    assert found[0].tolist() == pytest.approx(everything, abs=1e-6)
    assert MultiLabel().mean_loss(logits, labels) == pytest.approx(np.mean(plain))


def test_what_unknown_clips_score_changes_no_measure_and_no_resample() -> None:
    logits, labels = drawn(2)
    other = np.where(labels < 0, 100 * np.random.default_rng(3).normal(size=labels.shape), logits).astype(np.float32)
    for kind in (MultiLabel(unlabelled="last"), MultiLabel(unlabelled="negative")):
        assert kind.measures(logits, labels) == kind.measures(other, labels)
        assert kind.mean_loss(logits, labels) == kind.mean_loss(other, labels)
        np.testing.assert_array_equal(kind.clip_scores(logits, labels), kind.clip_scores(other, labels))
        first, second = (population_map(own, labels, kind) for own in (logits, other))
        assert first.value == second.value
        np.testing.assert_array_equal(first.influences, second.influences)


def test_classes_of_single_labels_score_their_share_of_right_clips() -> None:
    rng = np.random.default_rng(4)
    logits, targets = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 4, 60)
    found = SingleLabel().class_scores(logits, targets)
    for k in range(4):
        own = [row.argmax() == k for row, target in zip(logits, targets, strict=True) if target == k]
        assert found[k] == pytest.approx(sum(own) / len(own))
    assert np.isnan(found[4])
    rows = SingleLabel().per_class(logits, targets, list("abcde"))
    assert [row["class"] for row in rows] == sorted("abcd", key=lambda name: (found["abcd".index(name)], name))


def test_probabilities_and_logits_are_inverse() -> None:
    logits = np.random.default_rng(5).normal(size=(20, 6)).astype(np.float32)
    for kind in (SingleLabel(), MultiLabel()):
        again = kind.probabilities(kind.logits_of(kind.probabilities(logits)))
        np.testing.assert_allclose(again, kind.probabilities(logits), rtol=1e-5)


def test_smoothing_that_no_class_loss_would_do_is_refused() -> None:
    focal, plain = Task(space="atomic", loss="focal"), Task(space="activity")
    kinds = {"atomic": MultiLabel(), "activity": SingleLabel()}
    with pytest.raises(InputError, match="would be ignored"):
        check_smoothing([focal, focal], kinds, 0.1)
    check_smoothing([focal, plain], kinds, 0.1)
    check_smoothing([focal], kinds, 0.0)
    check_smoothing([focal], {"atomic": SingleLabel()}, 0.1)


def test_ccaus_loss_of_several_labels_is_focal_and_weighed_on_a_cache_by_itself_too() -> None:
    config = CCAUConfig(embedding_dim=4, num_blocks=2, multi_loss="focal", multi_weight=7)
    spec = CacheSpec.standard(num_frames=8, num_steps=2, num_instances=1, channels=4, grid_size=(2, 2))
    with pytest.raises(InputError, match=r"spaces names verb; a cache by itself .*--labels"):
        CCAU(replace(config, spaces=("verb",)), spec, 3)
    head = CCAU(config, spec, 3)
    scores = torch.randn(1, 5, 3)
    for kind, targets in ((MultiLabel(), torch.randint(0, 2, (1, 5, 3))), (SingleLabel(), torch.arange(5)[None] % 3)):
        labels = {"": Labels(targets=targets, kind=kind)}
        found = losses_of(HeadOutput(logits=scores), head.tasks, labels, {}, 0.0)["classification"]
        plain = kind.class_loss(scores, targets, label_smoothing=0.0)
        each = plain if kind.exclusive else 7 * kind.focal_loss(scores, targets)
        torch.testing.assert_close(found, each.mean(1))
