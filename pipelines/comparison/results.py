"""Systems side by side: accuracy over seeds, intervals over clips, and tests against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.pipelines.comparison.statistics import (
    PairedTest,
    bootstrap_interval,
    holm,
    mcnemar,
    paired_bootstrap,
)
from ifcar.pipelines.runs import Run
from ifcar.pipelines.scores import target_ranks

PairedTestName = Literal["bootstrap", "mcnemar"]


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
        published: top-1 and top-5 in percent, when the protocol is the same data.
    """

    name: str
    protocol: str
    replicates: Sequence[Replicate]
    factors: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """What a table says about one system on one protocol; accuracies are shares.

    Args:
        system: the system's name.
        protocol: the protocol's name.
        head: the registered head, or "ensemble".
        factors: values of the grid's factors, by name.
        n: test clips.
        seeds: one entry a replicate; with several few-shot draws a seed comes more than once.
        top1: test top-1 of each replicate.
        top5: test top-5 of each replicate.
        train_top1: top-1 on the training clips of each replicate.
        interval: 95 % bootstrap interval of the mean top-1 over clips.
        against: how top-1 differs from the baseline's on the same clips; None for the baseline itself.
        p_corrected: its p after Holm's correction over all comparisons of the table.
        published: top-1 and top-5 in percent from the paper, when the protocol is the same data; else empty.
        runs: run folders.
    """

    system: str
    protocol: str
    head: str
    factors: Mapping[str, Any]
    n: int
    seeds: tuple[int, ...]
    top1: tuple[float, ...]
    top5: tuple[float, ...]
    train_top1: tuple[float, ...]
    interval: tuple[float, float]
    against: PairedTest | None
    p_corrected: float | None
    published: Mapping[str, float]
    runs: tuple[str, ...]


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
    right = [_right(system) for system in systems]
    rows = [_row(system, r) for system, r in zip(systems, right, strict=True)]
    of_baseline = {s.protocol: r for s, r in zip(systems, right, strict=True) if s.name == baseline}
    tests: dict[int, PairedTest] = {}
    for place, (system, ours) in enumerate(zip(systems, right, strict=True)):
        other = of_baseline.get(system.protocol)
        if other is None or system.name == baseline:
            continue
        if not np.array_equal(ours.clip_ids, other.clip_ids):
            raise InputError(f"{system.name} and {baseline} were tested on different clips of {system.protocol}")
        if paired_test == "mcnemar":
            if ours.matrix.shape[0] > 1 or other.matrix.shape[0] > 1:
                raise InputError("test 'mcnemar' compares single runs; name one seed, or take test: bootstrap")
            tests[place] = mcnemar(ours.matrix[0], other.matrix[0])
        else:
            tests[place] = paired_bootstrap(ours.matrix.mean(axis=0), other.matrix.mean(axis=0))
    corrected = dict(zip(tests, holm([t.p for t in tests.values()]), strict=True))
    return [replace(row, against=tests.get(place), p_corrected=corrected.get(place)) for place, row in enumerate(rows)]


@dataclass(frozen=True, kw_only=True)
class _Right:
    """Which clips are right.

    Args:
        clip_ids: (n,) in the order of the runs' predictions, protocol after protocol.
        matrix: (S, n) 1 where the replicate is right.
        top5: (S,) share of clips whose class is among the five highest.
    """

    clip_ids: NDArray[np.str_]
    matrix: NDArray[np.float64]
    top5: NDArray[np.float64]


def _right(system: System) -> _Right:
    ids: list[NDArray[np.str_]] = []
    matrix, top5 = [], []
    for replicate in system.replicates:
        predictions = [run.predictions("test") for run in replicate.runs]
        own = np.concatenate([p.clip_ids for p in predictions])
        if ids and not np.array_equal(own, ids[0]):
            raise InputError(f"{replicate.runs[0].path}: tested on other clips than {system.name}'s other runs")
        ids.append(own)
        ranks = np.concatenate([target_ranks(p) for p in predictions])
        matrix.append((ranks < 1).astype(np.float64))
        top5.append(float((ranks < 5).mean()))
    return _Right(clip_ids=ids[0], matrix=np.stack(matrix), top5=np.array(top5))


def _row(system: System, right: _Right) -> ResultRow:
    runs = [run for replicate in system.replicates for run in replicate.runs]
    return ResultRow(
        system=system.name,
        protocol=system.protocol,
        head=runs[0].config.head,
        factors=system.factors,
        n=right.matrix.shape[1],
        seeds=tuple(replicate.seed for replicate in system.replicates),
        top1=tuple(float(v) for v in right.matrix.mean(axis=1)),
        top5=tuple(float(v) for v in right.top5),
        train_top1=tuple(_pooled_top1(replicate.runs, "train") for replicate in system.replicates),
        interval=bootstrap_interval(right.matrix.mean(axis=0)),
        against=None,
        p_corrected=None,
        published=system.published,
        runs=tuple(str(run.path) for run in runs),
    )


def _pooled_top1(runs: Sequence[Run], split: str) -> float:
    """Return the top-1 over the clips of all these runs."""
    metrics = [m for run in runs if (m := run.metric(split)) is not None]
    return sum(m.top1 * m.n for m in metrics) / max(1, sum(m.n for m in metrics))
