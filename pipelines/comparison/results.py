"""Systems side by side: accuracy over seeds, intervals over clips, and tests against a baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.pipelines.comparison.statistics import (
    Jackknifed,
    PairedTest,
    bootstrap_interval,
    holm,
    mcnemar,
    paired_bootstrap,
    population_map,
)
from ifcar.pipelines.labels.contract import LabelKind
from ifcar.pipelines.labels.kinds import TOP_K, target_ranks
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.tasks import on_task
from ifcar.pipelines.scoring.scores import Predictions, pooled_units

PairedTestName = Literal["bootstrap", "mcnemar"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What a system takes besides clips.

    Args:
        minutes: of training, mean over its runs, each with its share of the runs that trained together, see
            `training_seconds`; None where runs do not say.
        size_bytes: of what its runs read of the cache, without checksums.
    """

    minutes: float | None
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One training of a system.

    Args:
        seed: its seed.
        draw: number of the few-shot draw, from 0.
        runs: one run, or one a protocol when several protocols are pooled: their test clips are put together.
    """

    seed: int
    draw: int = 0
    runs: Sequence[Run]


@dataclass(frozen=True, kw_only=True)
class System:
    """One line of a table: the runs of one configuration on one protocol, or on several that are pooled.

    Args:
        name: what the table calls it.
        protocol: the protocol's name, or what the pooled ones are called.
        replicates: one a seed and few-shot draw; all are tested on the same clips.
        factors: values of the grid's factors, by name.
        published: measures in percent, when the protocol is the same data.
        task: STREAM/SPACE that the runs are shown on, see `ifcar.pipelines.runs.tasks`; "" for what they are by
            themselves.
        costs: what it takes, where the table shows that.
    """

    name: str
    protocol: str
    replicates: Sequence[Replicate]
    factors: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    task: str = ""
    costs: Costs | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """What a table says about one system on one protocol; measures are shares.

    Args:
        system: the system's name.
        protocol: the protocol's name.
        head: the registered head, or "ensemble".
        factors: values of the grid's factors, by name.
        n: test clips.
        seeds: one entry a replicate; with several few-shot draws a seed comes more than once.
        metric: the measure that decides, "top1", or "map" on a multi-label protocol.
        primary: that measure on the test clips, of each replicate.
        top5: test top-5 of each replicate; empty on a multi-label protocol.
        weighted_map: test mAP of each replicate with each class weighted by its clips; empty elsewhere, and where an
            earlier version made the table.
        train_primary: the measure on the training clips of each replicate; empty where they were not scored.
        population: the measure, mean over replicates, that endlessly many such clips would give: of accuracy its mean,
            of mAP what `population_map` estimates, for the mAP of few clips lies above that.
        interval: 95 % interval of `population` over units.
        num_units: how many units the intervals and tests are over, None where an earlier version did not say.
        unit: what is drawn whole: "clip", "segment", or what a group of the protocol is, see `pooled_units`.
        task: STREAM/SPACE that the runs are shown on; "" for what they are by themselves.
        costs: what the system takes, where the table shows that.
        against: how `population` differs from the baseline's on the same clips; None for the baseline itself.
        p_corrected: its p after Holm's correction over all comparisons of the table.
        published: measures in percent from the paper, when the protocol is the same data; else empty.
        runs: run folders.
    """

    system: str
    protocol: str
    head: str
    factors: Mapping[str, Any]
    n: int
    seeds: tuple[int, ...]
    metric: str
    primary: tuple[float, ...]
    top5: tuple[float, ...]
    train_primary: tuple[float, ...]
    population: float
    interval: tuple[float, float]
    against: PairedTest | None
    p_corrected: float | None
    published: Mapping[str, float]
    runs: tuple[str, ...]
    num_units: int | None = None
    unit: str = "clip"
    task: str = ""
    costs: Costs | None = None
    weighted_map: tuple[float, ...] = ()

    @property
    def stage(self) -> str:
        """The protocol without the task, which a table of several protocols writes behind it."""
        return self.protocol.removesuffix(f", {self.task}")

    def values(self, measure: str) -> tuple[float, ...]:
        """Return a measure on the test clips, of each replicate; empty where it is none of theirs.

        Args:
            measure: key in `MEASURES`.
        """
        return {"top5": self.top5, "weighted_map": self.weighted_map, self.metric: self.primary}.get(measure, ())

    def replicates(self, opened: Callable[[Path], Run]) -> list[list[Run]]:
        """Return the runs of each replicate, one or one a pooled protocol, on the row's task.

        Args:
            opened: opens a run's folder.

        Raises:
            InputError, MissingDataError: a run is not there or damaged, or there are not as many for each seed.
        """
        each = len(self.runs) // max(1, len(self.seeds))
        if not self.runs or each * len(self.seeds) != len(self.runs):
            raise InputError(f"its row names {len(self.runs)} runs for {len(self.seeds)} seeds")
        whole = [opened(Path(path)) for path in self.runs]
        runs = [on_task(run, self.task) for run in whole] if self.task else whole
        return [runs[start : start + each] for start in range(0, len(runs), each)]


def summarise(
    systems: Sequence[System], *, baseline: str | None = None, paired_test: PairedTestName = "bootstrap"
) -> list[ResultRow]:
    """Return one row a system, tested against the baseline of the same protocol.

    Args:
        systems: in the table's order.
        baseline: name of the system that the others are tested against; None makes no tests.
        paired_test: "bootstrap" over clips of seed-averaged results, or the exact "mcnemar" for one seed.

    Raises:
        InputError: two systems of a protocol were tested on different clips, or McNemar's test meets several seeds.
    """
    tested = [_test_results(system) for system in systems]
    rows = [_row(system, r) for system, r in zip(systems, tested, strict=True)]
    of_baseline = {s.protocol: r for s, r in zip(systems, tested, strict=True) if s.name == baseline}
    tests: dict[int, PairedTest] = {}
    for place, (system, ours) in enumerate(zip(systems, tested, strict=True)):
        other = of_baseline.get(system.protocol)
        if other is None or system.name == baseline:
            continue
        if not np.array_equal(ours.clip_ids, other.clip_ids):
            raise InputError(f"{system.name} and {baseline} were tested on different clips of {system.protocol}")
        tests[place] = ours.compare(other, paired_test)
    corrected = dict(zip(tests, holm([t.p for t in tests.values()]), strict=True))
    return [replace(row, against=tests.get(place), p_corrected=corrected.get(place)) for place, row in enumerate(rows)]


class _TestResults(ABC):
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


class _Right(_TestResults):
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


class _Ranked(_TestResults):
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


def _test_results(system: System) -> _Right | _Ranked:
    replicates = [[run.predictions("test") for run in replicate.runs] for replicate in system.replicates]
    ids = [np.concatenate([p.clip_ids for p in parts]) for parts in replicates]
    for replicate, own in zip(system.replicates, ids, strict=True):
        if not np.array_equal(own, ids[0]):
            raise InputError(f"{replicate.runs[0].path}: tested on other clips than {system.name}'s other runs")
    return (_Right if replicates[0][0].kind.exclusive else _Ranked)(ids[0], replicates)


def _row(system: System, tested: _Right | _Ranked) -> ResultRow:
    runs = [run for replicate in system.replicates for run in replicate.runs]
    return ResultRow(
        system=system.name,
        protocol=system.protocol,
        head=runs[0].config.head,
        factors=system.factors,
        n=len(tested.clip_ids),
        seeds=tuple(replicate.seed for replicate in system.replicates),
        metric=tested.kind.measure,
        primary=tested.values(tested.kind.measure),
        top5=tested.values("top5"),
        weighted_map=tested.values("weighted_map"),
        train_primary=_train_primary(system),
        population=tested.population(),
        interval=tested.interval(),
        against=None,
        p_corrected=None,
        published=system.published,
        runs=tuple(str(run.path) for run in runs),
        num_units=len(np.unique(tested.units)),
        unit=_unit(tested, runs[0]),
        task=system.task,
        costs=system.costs,
    )


def _unit(tested: _Right | _Ranked, run: Run) -> str:
    """Return what intervals take whole."""
    if tested.is_grouped:
        return run.data().group_kind or "group"
    return "clip" if len(np.unique(tested.units)) == len(tested.units) else "segment"


def _train_primary(system: System) -> tuple[float, ...]:
    """Return each replicate's top-1 over the training clips of all its runs, or their mAP, weighted by clips."""
    values = []
    for replicate in system.replicates:
        metrics = [m for run in replicate.runs if (m := run.metric("train")) is not None]
        found = [(m.primary, m.n) for m in metrics if m.primary is not None]
        if metrics:
            values.append(sum(value * n for value, n in found) / max(1, sum(n for _, n in found)))
    return tuple(values)
