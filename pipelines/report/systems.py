"""What a system's runs say about every test clip, over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.pipelines.labels.contract import LabelKind
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.scoring.scores import pooled_units


@dataclass(frozen=True, kw_only=True)
class SystemScores:
    """The test results of one line of a table.

    Args:
        name: what the table calls it.
        replicates: the runs of each seed (or seed and few-shot draw): one, or one a pooled protocol.
        seeds: one a replicate.
        clip_ids: (n,) test clips, in the order of the runs' predictions.
        segments: (n,) numbers; clips of one segment or group are resampled together, see `pooled_units`.
        targets: (n,) classes, or (n, K) labels.
        kind: of the labels.
        right: (S, n) how right each replicate is on each clip, see `LabelKind.clip_scores`.
    """

    name: str
    replicates: Sequence[Sequence[Run]]
    seeds: Sequence[int]
    clip_ids: NDArray[np.str_]
    segments: NDArray[np.int64]
    targets: NDArray[Any]
    kind: LabelKind
    right: NDArray[np.float64]

    def class_scores(self) -> NDArray[np.float64]:
        """Return (S, K) what each class scores in each replicate; NaN for a class without test clips."""
        return np.stack([self.kind.class_scores(logits, self.targets) for logits in self.logits()])

    def logits(self) -> list[NDArray[np.float32]]:
        """Return the logits (n, K) of each replicate."""
        return [np.concatenate([run.predictions("test").logits for run in runs]) for runs in self.replicates]

    def labels(self, num_classes: int) -> NDArray[np.bool_]:
        """Return (n, K), True where a clip has the class."""
        return self.kind.shown(self.targets, num_classes)

    def mean_right(self) -> NDArray[np.float64]:
        """Return (n,) how right the system is on each clip, the mean over its seeds."""
        mean: NDArray[np.float64] = self.right.mean(axis=0)
        return mean

    def runs(self) -> list[Run]:
        """Return all runs, replicate after replicate."""
        return [run for runs in self.replicates for run in runs]


def read_system(name: str, replicates: Sequence[Sequence[Run]], seeds: Sequence[int]) -> SystemScores:
    """Read which test clips a system gets right.

    Raises:
        InputError: predictions are missing or damaged, or its seeds were tested on different clips.
    """
    tested = [[run.predictions("test") for run in runs] for runs in replicates]
    kind, (clip_ids, *others) = tested[0][0].kind, [np.concatenate([p.clip_ids for p in parts]) for parts in tested]
    for runs, ids in zip(replicates[1:], others, strict=True):
        if not np.array_equal(ids, clip_ids):
            raise InputError(f"{runs[0].path}: tested on other clips than {replicates[0][0].path}; report one of them")
    return SystemScores(
        name=name,
        replicates=replicates,
        seeds=seeds,
        clip_ids=clip_ids,
        segments=pooled_units(tested[0])[0],
        targets=np.concatenate([p.targets for p in tested[0]]),
        kind=kind,
        right=np.stack([np.concatenate([kind.clip_scores(p.logits, p.targets) for p in parts]) for parts in tested]),
    )


def mean_probabilities(system: SystemScores) -> NDArray[np.float64]:
    """Return (n, K) class probabilities, the mean over seeds of each run's."""
    mean: NDArray[np.float64] = np.mean([system.kind.probabilities(logits) for logits in system.logits()], axis=0)
    return mean
