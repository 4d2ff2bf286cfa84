"""The config of each run of a grid, and the runs that it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.errors import InputError
from ifcar.heads.contract import Head
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.pipelines.folders import folder
from ifcar.pipelines.grid.config import FewShotConfig, GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.variants import Variant, teachers_of
from ifcar.pipelines.runs.config import ID_LENGTH, FineTuneConfig, RunConfig, run_id, run_name
from ifcar.pipelines.runs.distil import DistilConfig
from ifcar.pipelines.runs.heads import build_head
from ifcar.pipelines.runs.resolve import head_arrays, make_run_config, resolve
from ifcar.pipelines.runs.schedule import OF_STRETCHED, Plan, ScheduleConfig, make_plan, unused_of

TUNING = {"classifier": (1000, 1e-2), "all": (300, 1e-3)}
"""Steps and learning rate of a fine-tuning on few shots, enough to fit these on toybox."""


def run_config(config: GridConfig, system: SystemConfig, protocol: str, seed: int, cache: Path) -> RunConfig:
    """Return the config of a system's run, from its own start and unresolved."""
    assert system.head is not None
    schedule = {**to_plain(config.schedule), **to_plain(system.schedule)}
    _check_stated(system.schedule, schedule["kind"])
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


def _check_stated(stated: Mapping[str, Any], kind: str) -> None:
    for name in unused_of(stated, kind):
        raise InputError(f"schedule: {name} would be ignored: it belongs to kind stretched, and this one is {kind}")


def check_common_schedule(schedule: ScheduleConfig) -> None:
    """Refuse a schedule of all systems that states what its kind ignores."""
    default = ScheduleConfig()
    changed = {name: value for name in OF_STRETCHED if (value := getattr(schedule, name)) != getattr(default, name)}
    _check_stated(changed, schedule.kind)


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a resolved run: its readable name and its id, the same for every grid that asks for it."""
    return folder("runs") / f"{run_name(config)}-{run_id(config)[:ID_LENGTH]}"


def made_from(
    config: GridConfig,
    run: RunConfig,
    variant: Variant,
    variants: Sequence[Variant],
    table: ProtocolTable,
    reader: CacheReader,
) -> RunConfig:
    """Return a run's config with the runs, of the same protocol and seed, that it starts or learns from."""

    def resolved(system: SystemConfig) -> RunConfig:
        return resolve(run_config(config, system, run.protocol, run.seed, reader.path), reader, table)

    system, teachers = variant.system, []
    if system.start is not None:
        base = next(other.system for other in variants if other.name == system.start)
        run = started(run, resolved(base), system.parts)
    for other, task in teachers_of(system, variants):
        teachers.append(resolved(other))
        first = head_without_memory(teachers[-1], reader).tasks[0].name
        if task not in ("", first):
            raise InputError(
                f"distil_from: {other.name!r} keeps its answers on training clips of {first}, not of {task}"
            )
    if teachers:
        student = resolve(run, reader, table)
        for (other, _), teacher in zip(teachers_of(system, variants), teachers, strict=True):
            _check_unseen(student, teacher, table, reader, f"system {system.name!r}: distil_from: {other.name!r}")
        ids = tuple(run_id(teacher) for teacher in teachers)
        run = replace(run, distil_from=DistilConfig(runs=tuple(map(run_folder, teachers)), run_ids=ids))
    return run


def _check_unseen(student: RunConfig, teacher: RunConfig, table: ProtocolTable, reader: CacheReader, of: str) -> None:
    """Refuse, before any trains, a teacher that will have learned what chooses its student's stopping point."""
    spec = reader.spec_of(student.protocol)
    held_out = _plan_of(student, table, spec).held_out
    if held_out and (teacher.schedule.refit or _plan_of(teacher, table, spec).held_out != held_out):
        raise InputError(
            f"{of} would learn clips that are held out here to choose the stopping point; give both systems "
            "schedule: {kind: paper}, or both {kind: stretched, refit: false}"
        )


def _plan_of(run: RunConfig, table: ProtocolTable, spec: CacheSpec) -> Plan:
    appearance = spec.reads_features(head_arrays(run, spec))
    return make_plan(run.schedule, len(table.clips(Split.TRAIN)), reads_appearance=appearance)


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
        plan = _plan_of(base, base_table, spec)
        num_steps, lr = TUNING[few_shot.train]
        stretched = ScheduleConfig(kind="stretched", min_steps=num_steps, lr=lr, held_out=0.0)
        schedule = stretched if plan.kind == "stretched" else ScheduleConfig(kind=plan.kind)
    start = FineTuneConfig(base=run_folder(base), train=few_shot.train, base_id=run_id(base))
    return replace(run, schedule=schedule, fine_tune=start)


def head_without_memory(config: RunConfig, reader: CacheReader) -> Head:
    """Build a run's head without memory, so that it says what the cache lacks."""
    with torch.device("meta"):
        return build_head(config, reader.spec_of(config.protocol), 2)
