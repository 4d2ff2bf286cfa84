"""`ifcar compare A B`: in what two caches, runs or published rows differ, what they score, and whether that differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.open import open_cache
from ifcar.cache.single import FILE_SUFFIXES
from ifcar.counts import count_of
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.comparison.results import Replicate, ResultRow, System, summarise
from ifcar.pipelines.comparison.store import NAME as RESULTS
from ifcar.pipelines.grid.config import GridConfig, read_grid
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.variants import expand
from ifcar.pipelines.published.tables import BETWEEN, PublishedRow, PublishedTable, published_row
from ifcar.pipelines.runs.differences import Difference, differences, silent_kinds
from ifcar.pipelines.runs.facts import COUNTS, Fact, Facts, Kind, cache_facts, config_facts, run_facts
from ifcar.pipelines.runs.finished import Run, is_finished, open_run
from ifcar.pipelines.runs.resolve import make_run_config


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two things that are compared.

    Args:
        name: as it was named.
        what: "cache", "run" or "published row".
        facts: what it is.
        run: the run, where it is one.
        published: the table and row, where it is one.
    """

    name: str
    what: str
    facts: Facts
    run: Run | None = None
    published: tuple[PublishedTable, PublishedRow] | None = None


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
        published: the row's figures in percent by measure, where they are of the run's data.
        unprinted: why they are not; empty where they are, and where there is no row.
    """

    a: Side
    b: Side
    differences: Sequence[Difference]
    silent: Mapping[str, Sequence[Kind]]
    scores: Sequence[ResultRow] = field(default_factory=tuple)
    untested: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    unprinted: str = ""


def compare(a: str, b: str) -> Compared:
    """Compare caches, runs, and published rows with these.

    Args:
        a: a run's folder, a cache, or TABLE:ROW of `ifcar list published`.
        b: the same; B − A is what the test of two runs is of.

    Raises:
        MissingDataError, InputError: one of them is none of these or damaged, or both are published rows.
    """
    first, second = open_side(a), open_side(b)
    if first.published and second.published:
        raise InputError(f"{a} and {b} are both published; compare one of them with a run or a cache")
    scores, untested = _scores(first, second)
    figures, unprinted = _published(first, second)
    if first.published or second.published:
        first, second = (_with_counts(side) for side in (first, second))
    return Compared(
        a=first,
        b=second,
        differences=differences(first.facts, second.facts),
        silent=silent_kinds(first.facts, second.facts),
        scores=scores,
        untested=untested,
        published=figures,
        unprinted=unprinted,
    )


def open_side(name: str) -> Side:
    """Read what a name stands for, see `compare`."""
    path = place_of(name)
    if is_finished(path):
        run = open_run(path)
        return Side(name=name, what="run", facts=run_facts(run), run=run)
    is_local = (path / "zarr.json").is_file() or (path.is_file() and path.name.endswith(FILE_SUFFIXES))
    if is_local or isinstance(path, Address):
        reader = open_cache(path)
        facts = cache_facts(reader)
        reader.close()
        return Side(name=name, what="cache", facts=facts)
    expected = (
        "expected a finished run's folder, a cache or TABLE:ROW of a paper; `ifcar list runs`, `caches` and "
        "`published` show them"
    )
    if (path / RESULTS).is_file():
        raise InputError(f"{path}: is a grid's table of several runs; name one of its runs, see {path / RESULTS}")
    if path.exists():
        raise InputError(f"{path}: neither a finished run nor a cache; {expected}")
    if BETWEEN in name and "/" not in name.partition(BETWEEN)[0]:
        table, row = published_row(name)
        return Side(name=name, what="published row", facts=_row_facts(table, row), published=(table, row))
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
    return f"they were tested on {len(ids[0]):,} and {len(ids[1]):,} clips, of which {count_of(shared, 'is')} the same"


def _row_facts(table: PublishedTable, row: PublishedRow) -> Facts:
    """Return what a paper states of a row, and the head and options of the grid's line that reproduces it."""
    facts = table.stated(row)
    protocols = [key.partition("@")[2] for key in row.figures if "@" in key] or list(table.data.classes)
    if len({*protocols}) == 1:
        counts = dict(zip(COUNTS, (table.data.classes, table.data.train, table.data.test), strict=True))
        facts += [Fact(name=n, value=known[protocols[0]]) for n, known in counts.items() if protocols[0] in known]
    if table.grid and row.line:
        grid = read_grid(Path(table.grid))
        for variant in (variant for system in grid.systems for variant in expand(system)):
            if variant.name == row.line:
                facts += _line_facts(grid, variant.system)
    return Facts(facts=facts, partial=True)


def _line_facts(grid: GridConfig, system: SystemConfig) -> list[Fact]:
    config = make_run_config(
        str(system.head),
        Path(),
        protocol="published",
        preset=system.preset or grid.preset,
        streams=system.streams,
        aux_weight=system.aux_weight,
        aux_weights=system.aux_weights,
        settings=system.settings,
    )
    return [fact for fact in config_facts(config) if fact.kind == "head" and fact.name != "preset"]


def _with_counts(side: Side) -> Side:
    """Return a run with its numbers of clips and classes as facts, which is all that a paper says of them."""
    if side.run is None:
        return side
    data = side.run.data()
    counts = zip(COUNTS, (len(data.classes), data.num_train, data.num_test), strict=True)
    facts = [*side.facts.facts, *(Fact(name=name, value=value) for name, value in counts)]
    return replace(side, facts=replace(side.facts, facts=facts))


def _published(a: Side, b: Side) -> tuple[dict[str, float], str]:
    """Return the published figures that may stand beside the run's scores, or why none may."""
    row, run = a.published or b.published, a.run or b.run
    if row is None:
        return {}, ""
    if run is None:
        return {}, "a cache has no score"
    table, own = row
    data = run.data()
    reason = table.mismatch(data)
    if reason:
        return {}, reason
    at = f"@{data.protocol}"
    figures = {key.removesuffix(at): value for key, value in own.figures.items() if key.endswith(at) or "@" not in key}
    return figures, "" if figures else f"the row has none for protocol {data.protocol}"
