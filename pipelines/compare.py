"""`ifcar compare A B`: in what two caches or runs differ, what both score, and whether that is a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ifcar.cache.open import HDF5_SUFFIXES, open_cache
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.comparison.results import Replicate, ResultRow, System, summarise
from ifcar.pipelines.comparison.store import NAME as RESULTS
from ifcar.pipelines.runs.facts import Difference, Facts, Kind, cache_facts, differences, run_facts, silent_kinds
from ifcar.pipelines.runs.finished import Run, is_finished, open_run


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two things that are compared.

    Args:
        name: as it was named.
        what: "cache" or "run".
        facts: what it is.
        run: the run, where it is one.
    """

    name: str
    what: str
    facts: Facts
    run: Run | None = None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What `ifcar compare` says.

    Args:
        a: the first side.
        b: the second.
        differences: by how likely each moves the number, the likeliest first.
        silent: kinds of facts that only the other side states, for "a" and "b".
        scores: of each run, the second one's tested against the first's where they have the same test clips.
        untested: why the scores are not tested against each other; empty where they are, and where there are not two.
    """

    a: Side
    b: Side
    differences: Sequence[Difference]
    silent: Mapping[str, Sequence[Kind]]
    scores: Sequence[ResultRow] = field(default_factory=tuple)
    untested: str = ""


def compare(a: str, b: str) -> Compared:
    """Compare two caches, two runs, or a run and a cache.

    Args:
        a: a run's folder or a cache.
        b: the same; B − A is what the test is of.

    Raises:
        MissingDataError, InputError: one of them is neither, or is damaged.
    """
    first, second = open_side(a), open_side(b)
    scores, untested = _scores(first, second)
    return Compared(
        a=first,
        b=second,
        differences=differences(first.facts, second.facts),
        silent=silent_kinds(first.facts, second.facts),
        scores=scores,
        untested=untested,
    )


def open_side(name: str) -> Side:
    """Read what a name stands for, see `compare`."""
    path = Path(name)
    if is_finished(path):
        run = open_run(path)
        return Side(name=name, what="run", facts=run_facts(run), run=run)
    if (path / "zarr.json").is_file() or (path.is_file() and path.suffix in HDF5_SUFFIXES):
        reader = open_cache(path)
        facts = cache_facts(reader)
        reader.close()
        return Side(name=name, what="cache", facts=facts)
    expected = "expected a finished run's folder or a cache; `ifcar list runs` and `ifcar list caches` show them"
    if (path / RESULTS).is_file():
        raise InputError(f"{path}: is a grid's table of several runs; name one of its runs, see {path / RESULTS}")
    if path.exists():
        raise InputError(f"{path}: neither a finished run nor a cache; {expected}")
    raise MissingDataError(f"{name}: no such run or cache; {expected}")


def _scores(a: Side, b: Side) -> tuple[list[ResultRow], str]:
    """Return the test results of the runs among two sides, and why these are not tested against each other."""
    systems = [_system(side.name, side.run) for side in (a, b) if side.run is not None]
    if a.run is None or b.run is None:
        return summarise(systems), ""
    untested = _untested(a.run, b.run)
    if untested:
        return summarise(systems), untested
    if a.name == b.name:
        systems[1] = replace(systems[1], name=f"{b.name} (again)")
    return summarise(systems, baseline=systems[0].name), ""


def _system(name: str, run: Run) -> System:
    return System(name=name, protocol="test", replicates=[Replicate(seed=run.metrics[0].seed, runs=[run])])


def _untested(a: Run, b: Run) -> str:
    """Return why two runs' scores cannot be tested clip by clip; empty where they can."""
    ours, theirs = (run.predictions("test") for run in (a, b))
    if a.data().classes != b.data().classes or ours.kind.name != theirs.kind.name:
        return "they tell other classes apart"
    ids = [list(side.clip_ids) for side in (ours, theirs)]
    if ids[0] == ids[1]:
        same = [str(side.targets.tolist()) for side in (ours, theirs)]
        return "" if same[0] == same[1] else "their test clips have other labels"
    shared = len({*ids[0]} & {*ids[1]})
    if shared == len(ids[0]) == len(ids[1]):
        return "they were tested on the same clips in another order"
    return f"they were tested on {len(ids[0]):,} and {len(ids[1]):,} clips, of which {shared:,} are the same"
