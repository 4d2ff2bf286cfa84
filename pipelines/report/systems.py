"""What a system's runs say about every test clip, over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.scoring.mean_ap import class_precisions
from ifcar.pipelines.scoring.scores import Predictions, target_ranks
from ifcar.pipelines.training.objectives import probabilities


@dataclass(frozen=True, kw_only=True)
class SystemScores:
    """The test results of one line of a table.

    Args:
        name: what the table calls it.
        replicates: the runs of each seed (or seed and few-shot draw): one, or one a pooled protocol.
        seeds: one a replicate.
        clip_ids: (n,) test clips, in the order of the runs' predictions.
        targets: (n,) classes, or (n, K) labels of a multi-label protocol.
        right: (S, n) how right each replicate is on each clip. With one label a clip 1 where it scores above all other
            classes, as in every table of ifcar, else 0; with several, see `clip_precisions`.
    """

    name: str
    replicates: Sequence[Sequence[Run]]
    seeds: Sequence[int]
    clip_ids: NDArray[np.str_]
    targets: NDArray[Any]
    right: NDArray[np.float64]

    @property
    def multi(self) -> bool:
        """Whether a clip may have several labels."""
        return self.targets.ndim == 2

    def clip_measure(self) -> tuple[str, str]:
        """Return the column and the name of what `right` measures."""
        return ("clip_ap", "per-clip AP") if self.multi else ("top1", "top-1")

    def measure_meaning(self) -> str:
        """Return a sentence, with a space after it, on a measure that does not stand in the table; else nothing."""
        if not self.multi:
            return ""
        return "Per-clip AP: over the labels of a clip, the mean precision at their ranks among all classes. "

    def class_precisions(self) -> NDArray[np.float64]:
        """Return (S, K) each replicate's average precision of each class; NaN for a class without test clips."""
        return np.stack([class_precisions(logits, self.targets) for logits in self.logits()])

    def logits(self) -> list[NDArray[np.float32]]:
        """Read the logits (n, K) of each replicate."""
        return [np.concatenate([run.predictions("test").logits for run in runs]) for runs in self.replicates]

    def labels(self, num_classes: int) -> NDArray[np.bool_]:
        """Return (n, K), True where a clip has the class."""
        if self.multi:
            return self.targets.astype(bool)
        one_hot: NDArray[np.bool_] = self.targets[:, None] == np.arange(num_classes)
        return one_hot

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
    clip_ids, targets, right = None, None, []
    for runs in replicates:
        parts = [run.predictions("test") for run in runs]
        ids = np.concatenate([p.clip_ids for p in parts])
        if clip_ids is None:
            clip_ids, targets = ids, np.concatenate([p.targets for p in parts])
        elif not np.array_equal(ids, clip_ids):
            raise InputError(f"{runs[0].path}: tested on other clips than {replicates[0][0].path}; report one of them")
        right.append(np.concatenate([_right(p) for p in parts]))
    assert clip_ids is not None and targets is not None
    return SystemScores(
        name=name,
        replicates=replicates,
        seeds=seeds,
        clip_ids=clip_ids,
        targets=targets,
        right=np.stack(right),
    )


def _right(predictions: Predictions) -> NDArray[np.float64]:
    """Return (n,), see `SystemScores.right`."""
    if predictions.multi:
        return clip_precisions(predictions.logits, predictions.targets)
    return (target_ranks(predictions) < 1).astype(np.float64)


def clip_precisions(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return (n,) the average precision of each clip's ranking of the classes; 0 for a clip without labels.

    At the rank of each label, the share of labels among the classes that score at least as high; the mean over labels.
    """
    found = np.zeros(len(labels))
    for place, (scores, shown) in enumerate(zip(logits, labels.astype(bool), strict=True)):
        own = scores[shown]
        if len(own):
            found[place] = np.mean([(own >= s).sum() / (scores >= s).sum() for s in own])
    return found


def mean_probabilities(system: SystemScores) -> NDArray[np.float64]:
    """Return (n, K) class probabilities, the mean over seeds of each run's."""
    mean: NDArray[np.float64] = np.mean(
        [probabilities(logits, multi=system.multi) for logits in system.logits()], axis=0
    )
    return mean


def right_on_average(probabilities: NDArray[np.float64], targets: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (n,) True where the own class is more probable than every other; a tie counts against it.

    With labels (n, K): where every label is more probable than every class that is none. Without labels: False.
    """
    if targets.ndim == 2:
        shown = targets.astype(bool)
        lowest = np.where(shown, probabilities, np.inf).min(axis=1)
        highest = np.where(shown, -np.inf, probabilities).max(axis=1)
        first: NDArray[np.bool_] = (lowest > highest) & shown.any(axis=1)
        return first
    own = probabilities[np.arange(len(targets)), targets]
    right: NDArray[np.bool_] = (probabilities >= own[:, None]).sum(axis=1) == 1
    return right
