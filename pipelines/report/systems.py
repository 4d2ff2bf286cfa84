"""What a system's runs say about every test clip, over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.pipelines.objectives import softmax
from ifcar.pipelines.runs import Run
from ifcar.pipelines.scores import target_ranks


@dataclass(frozen=True, kw_only=True)
class SystemScores:
    """The test results of one line of a table.

    Args:
        name: what the table calls it.
        replicates: the runs of each seed (or seed and few-shot draw): one, or one a pooled protocol.
        seeds: one a replicate.
        clip_ids: (n,) test clips, in the order of the runs' predictions.
        targets: (n,) classes.
        right: (S, n) 1 where the replicate's own class scores above all others, as in every table of ifcar.
    """

    name: str
    replicates: Sequence[Sequence[Run]]
    seeds: Sequence[int]
    clip_ids: NDArray[np.str_]
    targets: NDArray[np.int64]
    right: NDArray[np.float64]

    def labels(self, num_classes: int) -> NDArray[np.bool_]:
        """Return (n, K), True where a clip has the class."""
        if self.targets.ndim == 2:
            return self.targets.astype(bool)
        one_hot: NDArray[np.bool_] = self.targets[:, None] == np.arange(num_classes)
        return one_hot

    def mean_right(self) -> NDArray[np.float64]:
        """Return (n,) the share of seeds that are right on each clip."""
        mean: NDArray[np.float64] = self.right.mean(axis=0)
        return mean

    def runs(self) -> list[Run]:
        """Return all runs, replicate after replicate."""
        return [run for runs in self.replicates for run in runs]


def read_system(name: str, replicates: Sequence[Sequence[Run]], seeds: Sequence[int]) -> SystemScores:
    """Read which test clips a system gets right.

    Raises:
        InputError: predictions are missing or damaged, of a multi-label protocol, or its seeds were tested on
            different clips.
    """
    clip_ids, targets, right = None, None, []
    for runs in replicates:
        parts = [run.predictions("test") for run in runs]
        if parts[0].multi:
            raise InputError("its clips have several labels each; figures of single clips need one class a clip")
        ids = np.concatenate([p.clip_ids for p in parts])
        if clip_ids is None:
            clip_ids, targets = ids, np.concatenate([p.targets for p in parts])
        elif not np.array_equal(ids, clip_ids):
            raise InputError(f"{runs[0].path}: tested on other clips than {replicates[0][0].path}; report one of them")
        right.append(np.concatenate([target_ranks(p) for p in parts]) < 1)
    assert clip_ids is not None and targets is not None
    return SystemScores(
        name=name,
        replicates=replicates,
        seeds=seeds,
        clip_ids=clip_ids,
        targets=targets,
        right=np.stack(right).astype(np.float64),
    )


def mean_probabilities(system: SystemScores) -> NDArray[np.float64]:
    """Return (n, K) class probabilities, the mean over seeds of each run's softmax."""
    total = sum(np.concatenate([softmax(run.predictions("test").logits) for run in runs]) for runs in system.replicates)
    mean: NDArray[np.float64] = np.asarray(total) / len(system.replicates)
    return mean


def right_on_average(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n,) True where the own class is more probable than every other; a tie counts against it."""
    own = probabilities[np.arange(len(targets)), targets]
    right: NDArray[np.bool_] = (probabilities >= own[:, None]).sum(axis=1) == 1
    return right
