"""From a grid file and a cache to runs: every system, protocol and seed resolved and checked before one starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ifcar.cache.open import open_cache
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split, Status
from ifcar.cache.streams import space_sizes
from ifcar.counts import count_of
from ifcar.errors import CacheMismatchError, IfcarError, InputError, nearest_of
from ifcar.pipelines.feed.examples import Examples, limit_views, read_examples
from ifcar.pipelines.grid.checks import check_extraction, check_feedable, check_measurable
from ifcar.pipelines.grid.choice import check_choices
from ifcar.pipelines.grid.config import FewShotConfig, GridConfig
from ifcar.pipelines.grid.costs import bytes_read
from ifcar.pipelines.grid.run_configs import check_common_schedule, made_from, run_config, run_folder, tuned
from ifcar.pipelines.grid.variants import Variant, check_names, check_sources, expand
from ifcar.pipelines.published.tables import published_table
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.resolve import default_protocol, head_arrays, resolve
from ifcar.pipelines.training.jobs import Job

POOLED = "all protocols"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One column of results of every system: a protocol, pooled protocols, or a number of shots.

    Args:
        label: what the table calls it.
        draws: the protocols of each draw; without few-shot draws one, with several protocols when they are pooled.
        tuned: whether its runs start from those of the first stage.
    """

    label: str
    draws: Sequence[Sequence[str]]
    tuned: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedReplicate:
    """The runs of one system, stage, seed and draw: one a protocol."""

    variant: Variant
    stage: Stage
    seed: int
    draw: int
    jobs: Sequence[Job]


@dataclass(frozen=True, kw_only=True)
class GridPlan:
    """Everything a grid will do.

    Args:
        config: the grid.
        cache: its cache.
        dataset: name of the cache's data.
        fingerprint: the cache's.
        variants: lines of the table.
        stages: columns.
        replicates: in the table's order.
        other_data: for each stage's label in what its data are not those of the published figures, or an empty text.
        num_rows: computed ones of the cache.
        shuffled: streams of the cache that show other recordings.
        sizes: bytes that a variant reads of the cache at a stage, by its number and the stage's label.
    """

    config: GridConfig
    cache: Path
    dataset: str
    fingerprint: str
    variants: Sequence[Variant]
    stages: Sequence[Stage]
    replicates: Sequence[PlannedReplicate]
    other_data: Mapping[str, str] = field(default_factory=dict)
    num_rows: int = 0
    shuffled: Sequence[str] = ()
    sizes: Mapping[tuple[int, str], int] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        """Return every run once."""
        return list({job.path: job for planned in self.replicates for job in planned.jobs}.values())


def plan_grid(config: GridConfig, cache: Path) -> GridPlan:
    """Resolve a grid on a cache.

    Raises:
        InputError, CacheMismatchError: anything that would make a run fail that can be known before: an unknown or
            duplicate name, a value out of range, a protocol or an array that the cache does not have.
    """
    reader = open_cache(cache)
    dataset = str(reader.identity["dataset"]["name"])
    if config.dataset not in (None, dataset):
        raise CacheMismatchError(f"grid {config.name!r} is for {config.dataset}, but {cache} holds {dataset}")
    check_extraction(config, reader, dataset)
    variants = [variant for system in config.systems for variant in expand(system)]
    check_names(variants, config)
    check_sources(variants)
    check_common_schedule(config.schedule)
    stages = _stages(config, reader)
    names = dict.fromkeys(name for stage in stages for draw in stage.draws for name in draw)
    # What a join states is learned beside the first.
    tables = {n: reader.protocol(n).led_by(config.labels, space_sizes(reader.spec_of(n))) for n in names}
    parts = {n: [read_examples(reader, t, split) for split in (Split.TRAIN, Split.TEST)] for n, t in tables.items()}
    for name, table in tables.items():
        check_measurable(parts[name], table, reader)
    replicates: list[PlannedReplicate] = []
    sizes: dict[tuple[int, str], int] = {}
    for number, variant in enumerate(variants):
        try:
            made = list(_replicates(config, variant, variants, stages, tables, reader))
            run = made[0].jobs[0].config
            used = {name: _limited(run, reader, own) for name, own in parts.items()}
            check_feedable(run, reader, list(used.values()), variant.system.tasks)
        except IfcarError as error:
            raise type(error)(f"system {variant.name!r}: {error}") from error
        replicates += made
        for stage in stages:
            shown = [part for draw in stage.draws for name in draw for part in used[name]]
            sizes[number, stage.label] = bytes_read(reader, head_arrays(run), shown)
    check_choices(config.choices, [(r.variant.template, job.config) for r in replicates for job in r.jobs])
    other_data = {stage.label: _other_data(config, reader, dataset, stage, tables) for stage in stages}
    plan = GridPlan(
        config=config,
        cache=cache,
        dataset=dataset,
        fingerprint=reader.fingerprint,
        variants=variants,
        stages=stages,
        replicates=replicates,
        other_data=other_data,
        num_rows=int(np.count_nonzero(reader.status() == Status.DONE)),
        shuffled=reader.shuffled_streams(),
        sizes=sizes,
    )
    reader.close()
    return plan


def _stages(config: GridConfig, reader: CacheReader) -> list[Stage]:
    known = reader.protocol_names()
    if config.few_shot is not None:
        return _few_shot_stages(config.few_shot, known, reader.path)
    protocols = config.protocols or (default_protocol(reader.path),)
    for name in protocols:
        if name not in known:
            raise InputError(f"{reader.path} has no protocol {name!r}{nearest_of(name, known)}")
    if config.pool:
        _check_apart(reader, protocols)
        return [Stage(label=POOLED, draws=[protocols])]
    return [Stage(label=name, draws=[[name]]) for name in protocols]


def _check_apart(reader: CacheReader, protocols: Sequence[str]) -> None:
    """Refuse to pool test parts that share a clip, which would count as two."""
    tested: dict[int, str] = {}
    for name in protocols:
        clips = reader.protocol(name).clips(Split.TEST).tolist()
        shared = [clip for clip in clips if clip in tested]
        if shared:
            raise InputError(
                f"pool: {count_of(len(shared), 'clip is', 'clips are')} in the test parts of {tested[shared[0]]!r} and "
                f"of {name!r}, the first: {reader.clip_ids[shared[0]]!r}; expected parts that share none, as where "
                "each leaves another group out"
            )
        tested |= dict.fromkeys(clips, name)


def _few_shot_stages(few_shot: FewShotConfig, known: Sequence[str], cache: Path) -> list[Stage]:
    stages = [Stage(label=few_shot.base, draws=[[few_shot.base]])]
    for shots in few_shot.shots:
        name = f"fewshot-{shots}"
        draws = sorted((p for p in known if p.startswith(f"{name}-draw")), key=lambda p: int(p.rpartition("draw")[2]))
        stages.append(Stage(label=name, draws=[[p] for p in (name, *draws)], tuned=True))
    for stage in stages:
        if stage.draws[0][0] not in known:
            shown = ", ".join(p for p in known if p.startswith("fewshot")) or "none"
            raise InputError(f"{cache} has no protocol {stage.label!r}; its few-shot protocols: {shown}")
    return stages


def _replicates(
    config: GridConfig,
    variant: Variant,
    variants: Sequence[Variant],
    stages: Sequence[Stage],
    tables: Mapping[str, ProtocolTable],
    reader: CacheReader,
) -> Iterator[PlannedReplicate]:
    for stage in stages:
        for seed in config.seeds:
            for draw, protocols in enumerate(stage.draws):
                jobs = []
                for name in protocols:
                    run = run_config(config, variant.system, name, seed, reader.path)
                    if stage.tuned:
                        assert config.few_shot is not None
                        base = resolve(
                            run_config(config, variant.system, config.few_shot.base, seed, reader.path),
                            reader,
                            tables[config.few_shot.base],
                        )
                        run = tuned(run, base, config.few_shot, tables[config.few_shot.base], reader.spec)
                    run = made_from(config, run, variant, variants, tables[name], reader)
                    run = resolve(run, reader, tables[name])
                    jobs.append(Job(config=run, path=run_folder(run)))
                yield PlannedReplicate(variant=variant, stage=stage, seed=seed, draw=draw, jobs=jobs)


def _limited(config: RunConfig, reader: CacheReader, parts: Sequence[Examples]) -> list[Examples]:
    return [limit_views(part, reader, config.views, config.augmented_views) for part in parts]


def _other_data(
    config: GridConfig, reader: CacheReader, dataset: str, stage: Stage, tables: Mapping[str, ProtocolTable]
) -> str:
    """Return in what a stage's data differ from those of the published figures; empty where they are the same."""
    published = config.published_data()
    if published is None:
        return "nothing is published"
    if len(stage.draws) > 1 or len(stage.draws[0]) > 1:
        return "several draws or protocols together, the paper has one"
    table = tables[stage.draws[0][0]]
    counts = len(table.labels.classes), len(table.clips(Split.TRAIN)), len(table.clips(Split.TEST))
    found = published.mismatch(dataset, table.name, *counts)
    if not found and config.published_table is not None:
        return published_table(config.published_table).other_boxes(reader.identity)
    return found
