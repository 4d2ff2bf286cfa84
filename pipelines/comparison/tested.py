"""What the replicates of a system say of the test clips: the measure, its interval and its tests, by kind of labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.pipelines.comparison.statistics import (
    Jackknifed,
    PairedTest,
    bootstrap_interval,
    mcnemar,
    paired_bootstrap,
    population_map,
)
from ifcar.pipelines.labels.contract import LabelKind
from ifcar.pipelines.labels.kinds import TOP_K, target_ranks
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.scoring.scores import Predictions, pooled_units

PairedTestName = Literal["bootstrap", "mcnemar"]


class TestResults(ABC):
    """What the replicates of a system say of the test clips, in the order of the runs' predictions."""

    def __init__(self, clip_ids: NDArray[np.str_], replicates: Sequence[Sequence[Predictions]]) -> None:
        self.clip_ids = clip_ids
        self.kind: LabelKind = replicates[0][0].kind
        self.targets = np.concatenate([p.targets for p in replicates[0]])
        self.units, self.is_grouped = pooled_units(replicates[0])
        self.logits = [np.concatenate([p.logits for p in parts]) for parts in replicates]
        self.measured = [self.kind.measures(logits, self.targets) for logits in self.logits]

    def values(self, measure: str) -> tuple[float, ...]:
        """Return a measure of each replicate; empty where it is none of the labels'."""
        return tuple(own[measure] for own in self.measured if measure in own)

    @abstractmethod
    def population(self) -> float:
        """Return the mean that endlessly many such clips would give."""

    @abstractmethod
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval over clips of `population`."""

    @abstractmethod
    def compare(self, other: Any, paired_test: PairedTestName) -> PairedTest:
        """Test the difference to another system of the same protocol. Raises InputError where the test does not fit."""


class _Right(TestResults):
    """Which clips are right, (S, n) 1 where the replicate is; the measure is the mean."""

    def __init__(self, clip_ids: NDArray[np.str_], replicates: Sequence[Sequence[Predictions]]) -> None:
        super().__init__(clip_ids, replicates)
        ranks = np.stack([target_ranks(logits, self.targets) for logits in self.logits])
        self.matrix = (ranks < TOP_K["top1"]).astype(np.float64)

    def population(self) -> float:
        return float(self.matrix.mean())

    def interval(self) -> tuple[float, float]:
        return bootstrap_interval(self.matrix.mean(axis=0), self.units)

    def compare(self, other: Any, paired_test: PairedTestName) -> PairedTest:
        if paired_test != "mcnemar":
            return paired_bootstrap(self.matrix.mean(axis=0), other.matrix.mean(axis=0), self.units)
        if self.matrix.shape[0] > 1 or other.matrix.shape[0] > 1:
            raise InputError("test 'mcnemar' compares single runs; name one seed, or take test: bootstrap")
        if len(np.unique(self.units)) < len(self.units):
            raise InputError(
                "test 'mcnemar' takes clips that are independent, and these share segments or groups, as persons of "
                "one clip or clips of one video do; take test: bootstrap"
            )
        return mcnemar(self.matrix[0], other.matrix[0])


class _Ranked(TestResults):
    """Rankings of clips by each of several labels; the measure is mAP."""

    def __init__(self, clip_ids: NDArray[np.str_], replicates: Sequence[Sequence[Predictions]]) -> None:
        super().__init__(clip_ids, replicates)
        self.estimate = Jackknifed.mean([population_map(logits, self.targets, self.kind) for logits in self.logits])

    def population(self) -> float:
        return self.estimate.value

    def interval(self) -> tuple[float, float]:
        return self.estimate.interval(self.units)

    def compare(self, other: Any, paired_test: PairedTestName) -> PairedTest:
        if paired_test == "mcnemar":
            raise InputError("test 'mcnemar' needs one class a clip; take test: bootstrap for a multi-label protocol")
        difference: Jackknifed = self.estimate - other.estimate
        return difference.test(self.units)


def read_results(name: str, replicates: Sequence[Sequence[Run]]) -> TestResults:
    """Return what the runs of each replicate of a system say of the test clips.

    Raises:
        InputError: two replicates were tested on other clips.
    """
    found = [[run.predictions("test") for run in runs] for runs in replicates]
    ids = [np.concatenate([p.clip_ids for p in parts]) for parts in found]
    for runs, own in zip(replicates, ids, strict=True):
        if not np.array_equal(own, ids[0]):
            raise InputError(f"{runs[0].path}: tested on other clips than {name}'s other runs")
    return (_Right if found[0][0].kind.exclusive else _Ranked)(ids[0], found)
