"""From a grid file and a cache to runs: every system, protocol and seed resolved and checked before one starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.cache.streams import space_sizes, stream_names, stream_spec
from ifcar.errors import CacheMismatchError, IfcarError, InputError, nearest_of
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.pipelines.extraction.needs import asked_for, described, extract_words, unmet
from ifcar.pipelines.feed.boxes import check_boxes
from ifcar.pipelines.feed.examples import Examples, limit_views, read_examples
from ifcar.pipelines.folders import folder
from ifcar.pipelines.grid.choice import check_choices
from ifcar.pipelines.grid.config import FewShotConfig, GridConfig, SystemConfig
from ifcar.pipelines.grid.costs import bytes_read
from ifcar.pipelines.grid.variants import Variant, check_names, check_starts, expand
from ifcar.pipelines.published.tables import published_table
from ifcar.pipelines.runs.config import ID_LENGTH, FineTuneConfig, RunConfig, run_id, run_name
from ifcar.pipelines.runs.heads import build_head, keys_of
from ifcar.pipelines.runs.resolve import default_protocol, head_arrays, make_run_config, resolve
from ifcar.pipelines.runs.schedule import ScheduleConfig, make_plan
from ifcar.pipelines.training.jobs import Job
from ifcar.shell_words import command

TUNING = {"classifier": (1000, 1e-2), "all": (300, 1e-3)}
"""Steps and learning rate of a fine-tuning on few shots, enough to fit these on toybox."""
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
        cells: in the table's order.
        other_data: for each stage's label in what its data are not those of the published figures, or an empty text.
        num_rows: of the cache.
        sizes: bytes that a variant reads of the cache at a stage, by its number and the stage's label.
    """

    config: GridConfig
    cache: Path
    dataset: str
    fingerprint: str
    variants: Sequence[Variant]
    stages: Sequence[Stage]
    cells: Sequence[PlannedReplicate]
    other_data: Mapping[str, str] = field(default_factory=dict)
    num_rows: int = 0
    sizes: Mapping[tuple[int, str], int] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        """Return every run once."""
        return list({job.path: job for cell in self.cells for job in cell.jobs}.values())


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
    _check_extraction(config, reader, dataset)
    variants = [variant for system in config.systems for variant in expand(system)]
    check_names(variants, config)
    by_name = {variant.name: variant.system for variant in variants}
    check_starts(by_name)
    stages = _stages(config, reader)
    names = dict.fromkeys(name for stage in stages for draw in stage.draws for name in draw)
    beside = space_sizes(reader.spec)  # what a join states is learned beside the first
    tables = {name: reader.protocol(name).led_by(config.labels, beside) for name in names}
    parts = {n: [read_examples(reader, t, split) for split in (Split.TRAIN, Split.TEST)] for n, t in tables.items()}
    for name, table in tables.items():
        _check_measurable(parts[name], table, reader)
    cells: list[PlannedReplicate] = []
    sizes: dict[tuple[int, str], int] = {}
    for number, variant in enumerate(variants):
        try:
            made = list(_cells(config, variant, by_name, stages, tables, reader))
            run = made[0].jobs[0].config
            used = {name: _limited(run, reader, own) for name, own in parts.items()}
            _check_feedable(run, reader, list(used.values()), variant.system.tasks)
        except IfcarError as error:
            raise type(error)(f"system {variant.name!r}: {error}") from error
        cells += made
        for stage in stages:
            shown = [part for draw in stage.draws for name in draw for part in used[name]]
            sizes[number, stage.label] = bytes_read(reader, head_arrays(run), shown)
    check_choices(config.choices, [(cell.variant.template, job.config) for cell in cells for job in cell.jobs])
    other_data = {stage.label: _other_data(config, reader, dataset, stage, tables) for stage in stages}
    plan = GridPlan(
        config=config,
        cache=cache,
        dataset=dataset,
        fingerprint=reader.fingerprint,
        variants=variants,
        stages=stages,
        cells=cells,
        other_data=other_data,
        num_rows=reader.manifest.num_rows,
        sizes=sizes,
    )
    reader.close()
    return plan


def _check_extraction(config: GridConfig, reader: CacheReader, dataset: str) -> None:
    """Refuse a cache that was extracted otherwise than the grid asks, or a join of other streams."""
    if config.streams:
        _check_streams(config, reader, dataset)
        return
    wanted = config.extract_config(dataset)
    names = unmet(wanted, config.extraction, reader.identity, reader.spec)
    if names:
        made = command(*extract_words(replace(wanted, out=folder("caches") / f"{config.name}.zarr")))
        raise CacheMismatchError(
            f"{reader.path}: this cache has {described(names, reader.identity, reader.spec)}; {config.name} needs "
            f"{asked_for(wanted, names)}: make one with {made} and name it with --cache"
        )


def _check_streams(config: GridConfig, reader: CacheReader, dataset: str) -> None:
    made = "; ".join(command(*words) for words in config.cache_commands(dataset))
    there = {name: stream_spec(reader.spec, name) for name in stream_names(reader.spec.names())}
    for name, options in config.streams.items():
        if name not in there:
            raise CacheMismatchError(f"{reader.path}: no stream {name!r}; {config.name} needs a join made with {made}")
        wanted, asked = config.stream_config(name, dataset), {own: v for own, v in options.items() if own != "cameras"}
        names = unmet(wanted, asked, reader.identity_of(name), there[name])
        if names:
            has = described(names, reader.identity_of(name), there[name])
            raise CacheMismatchError(
                f"{reader.path}: stream {name!r} has {has}; {config.name} needs {asked_for(wanted, names)}: make it "
                f"with {made}"
            )


def _stages(config: GridConfig, reader: CacheReader) -> list[Stage]:
    known = reader.protocol_names()
    if config.few_shot is not None:
        return _few_shot_stages(config.few_shot, known, reader.path)
    protocols = config.protocols or (default_protocol(reader.path),)
    for name in protocols:
        if name not in known:
            raise InputError(f"{reader.path} has no protocol {name!r}{nearest_of(name, known)}")
    if config.pool:
        return [Stage(label=POOLED, draws=[protocols])]
    return [Stage(label=name, draws=[[name]]) for name in protocols]


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


def _cells(
    config: GridConfig,
    variant: Variant,
    systems: Mapping[str, SystemConfig],
    stages: Sequence[Stage],
    tables: Mapping[str, ProtocolTable],
    reader: CacheReader,
) -> Iterator[PlannedReplicate]:
    for stage in stages:
        for seed in config.seeds:
            for draw, protocols in enumerate(stage.draws):
                jobs = []
                for name in protocols:
                    run = _run_config(config, variant.system, name, seed, reader.path)
                    if stage.tuned:
                        assert config.few_shot is not None
                        base = resolve(
                            _run_config(config, variant.system, config.few_shot.base, seed, reader.path),
                            reader,
                            tables[config.few_shot.base],
                        )
                        run = tuned(run, base, config.few_shot, tables[config.few_shot.base], reader.spec)
                    if variant.system.start is not None:
                        other = _run_config(config, systems[variant.system.start], name, seed, reader.path)
                        run = started(run, resolve(other, reader, tables[name]), variant.system.parts)
                    run = resolve(run, reader, tables[name])
                    jobs.append(Job(config=run, path=run_folder(run)))
                yield PlannedReplicate(variant=variant, stage=stage, seed=seed, draw=draw, jobs=jobs)


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a resolved run: its readable name and its id, the same for every grid that asks for it."""
    return folder("runs") / f"{run_name(config)}-{run_id(config)[:ID_LENGTH]}"


def _run_config(config: GridConfig, system: SystemConfig, protocol: str, seed: int, cache: Path) -> RunConfig:
    assert system.head is not None
    schedule = {**to_plain(config.schedule), **to_plain(system.schedule)}
    return make_run_config(
        system.head,
        cache,
        protocol=protocol,
        labels=config.labels,
        preset=system.preset or config.preset,
        streams=system.streams,
        aux_weight=system.aux_weight,
        aux_weights=system.aux_weights,
        settings=system.settings,
        schedule=from_plain(ScheduleConfig, schedule, "schedule"),
        seed=seed,
        views=system.views,
        augmented_views=system.augmented_views,
    )


def started(run: RunConfig, base: RunConfig, parts: Sequence[str]) -> RunConfig:
    """Return the config of the run that trains on from the weights of `base`, or from parts of them."""
    start = FineTuneConfig(base=run_folder(base), parts=tuple(parts), train="all", base_id=run_id(base))
    return replace(run, fine_tune=start)


def tuned(
    run: RunConfig, base: RunConfig, few_shot: FewShotConfig, base_table: ProtocolTable, spec: CacheSpec
) -> RunConfig:
    """Return the config of the run that fine-tunes `base` on the run's own protocol.

    Without a schedule of its own it follows the base run's: the published one where that was used, else `TUNING`
    steps of Adam on all shots, with nothing held out: there is nothing to spare.
    """
    schedule = few_shot.schedule
    if schedule is None:
        appearance = spec.reads_features(head_arrays(base, spec))
        plan = make_plan(base.schedule, len(base_table.clips(Split.TRAIN)), reads_appearance=appearance)
        num_steps, lr = TUNING[few_shot.train]
        stretched = ScheduleConfig(kind="stretched", min_steps=num_steps, lr=lr, held_out=0.0)
        schedule = stretched if plan.kind == "stretched" else ScheduleConfig(kind=plan.kind)
    start = FineTuneConfig(base=run_folder(base), train=few_shot.train, base_id=run_id(base))
    return replace(run, schedule=schedule, fine_tune=start)


def _limited(config: RunConfig, reader: CacheReader, parts: Sequence[Examples]) -> list[Examples]:
    return [limit_views(part, reader, config.views, config.augmented_views) for part in parts]


def _check_feedable(
    config: RunConfig, reader: CacheReader, parts: Sequence[Sequence[Examples]], tasks: Sequence[str]
) -> None:
    """Build the head without memory, so that it says what the cache lacks; check its parts, tasks and boxes."""
    with torch.device("meta"):
        head = build_head(config, reader.spec, 2)
    known = [task.name for task in head.tasks if task.name]
    for name in tasks:
        if name not in known:
            raise InputError(f"tasks names {name!r}{nearest_of(name, known)}")
    for part in () if config.fine_tune is None else config.fine_tune.parts:
        keys_of(part, head.state_dict())
    reads = head_arrays(config)
    for trained, tested in parts:
        check_boxes(reader, config.head, reads, trained, tested)


def _check_measurable(parts: Sequence[Examples], table: ProtocolTable, reader: CacheReader) -> None:
    for part in parts:
        if not part.labels(len(table.labels.classes)).any():
            raise InputError(
                f"{reader.path}: none of the {len(part)} {part.name} clips of protocol {table.name!r} has a label, so "
                "that systems have nothing to be compared by; check the annotations and the splits"
            )


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
