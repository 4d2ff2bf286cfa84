"""`ifcar grid`: make every run of a grid file that is not there yet, fuse, and compare."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ifcar.cache.durable import write_atomic
from ifcar.cache.lock import locked
from ifcar.config_fields import path_of
from ifcar.errors import IfcarError, InputError
from ifcar.pipelines.comparison.formats import write_tables
from ifcar.pipelines.comparison.results import Replicate, System, summarise
from ifcar.pipelines.comparison.store import NAME as RESULTS
from ifcar.pipelines.comparison.store import Comparison, read_comparison, write_comparison
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.engines.cluster import RayConfig
from ifcar.pipelines.ensemble import fuse_runs
from ifcar.pipelines.fleets.pool import fit_all
from ifcar.pipelines.folders import folder, only_cache
from ifcar.pipelines.grid.choice import chosen, note_of
from ifcar.pipelines.grid.config import GridConfig, read_grid
from ifcar.pipelines.grid.costs import costs_of, extraction_note
from ifcar.pipelines.grid.lines import FusionConfig
from ifcar.pipelines.grid.plan import GridPlan, PlannedReplicate, Stage, plan_grid
from ifcar.pipelines.labels.contract import MEASURES
from ifcar.pipelines.progress import Progress, Silent
from ifcar.pipelines.runs.config import ENSEMBLE, ID_LENGTH
from ifcar.pipelines.runs.finished import Run, is_finished, open_run
from ifcar.pipelines.runs.tasks import on_task
from ifcar.pipelines.training.jobs import FailedRun
from ifcar.pipelines.training.machine import MachineConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class GridResult:
    """What a grid left behind.

    Args:
        comparison: the table.
        folder: holds grid.yaml, results.json and the tables.
        files: the tables.
        failures: runs that could not be made.
        num_runs: runs of the grid, fusions not counted.
        num_made: how many of them were made now.
    """

    comparison: Comparison
    folder: Path
    files: Sequence[Path]
    failures: Sequence[FailedRun]
    num_runs: int
    num_made: int


def grid(
    file: Path | str | GridConfig,
    cache: Path | str | None = None,
    progress: Progress = Silent(),
    machine: MachineConfig = MachineConfig(),
    *,
    out: Path | str | None = None,
    cluster: RayConfig | None = None,
) -> GridResult:
    """Make every run of a grid that is not there yet, and write its table, see `run_grid`.

    Args:
        file: a grid file, the name of a shipped one, or the grid itself.
        cache: what all runs train from; default: the only one in the caches folder.
        progress: told about every round.
        machine: where the runs train.
        out: folder of the table; default: the grid's name in the runs folder.
        cluster: a Ray cluster to train on; default: here.

    Raises:
        MissingDataError, InputError, CacheMismatchError: the grid or the cache cannot be used.
        LockedError: another process makes a grid in the folder.
    """
    config = file if isinstance(file, GridConfig) else read_grid(file)
    place = None if out is None else path_of(out, "out")
    return run_grid(plan_grid(config, only_cache(cache)), progress, machine, out=place, cluster=cluster)


def run_grid(
    plan: GridPlan,
    progress: Progress,
    machine: MachineConfig = MachineConfig(),
    *,
    out: Path | None = None,
    cluster: RayConfig | None = None,
) -> GridResult:
    """Make the runs of a plan, see `fit_all`, and write its table.

    Finished runs are kept, stopped ones resumed, so the same command goes on after a kill. A run that fails is listed;
    its system is compared with the runs that are left.

    Raises:
        InputError: the folder holds results of another cache, or no run could be made at all.
        LockedError: another process makes a grid in the folder.
    """
    path = out or folder("runs") / plan.config.name
    with locked(path):
        _check_folder(path, plan)
        path.mkdir(parents=True, exist_ok=True)
        content = yaml.safe_dump(to_plain(plan.config), sort_keys=False, allow_unicode=True)
        write_atomic(path / "grid.yaml", content.encode())
        jobs = plan.jobs()
        before = sum(is_finished(job.path) for job in jobs)
        failures = fit_all(jobs, progress, machine, cluster=cluster)
        made = sum(is_finished(job.path) for job in jobs) - before
        if len(failures) == len(jobs):
            raise InputError(f"grid {plan.config.name!r}: every run failed; the first: {failures[0].reason}")
        comparison = _compare(plan, failures)
        write_comparison(path, comparison)
        files = write_tables(path, comparison)
    return GridResult(
        comparison=comparison, folder=path, files=files, failures=failures, num_runs=len(jobs), num_made=made
    )


def _compare(plan: GridPlan, failures: list[FailedRun]) -> Comparison:
    """Fuse finished runs and compare the systems; fusions that fail join `failures`."""
    systems = _systems(plan)
    for fusion in plan.config.ensembles:
        systems += _fused(plan, fusion, systems, failures)
    for choice in plan.config.choices:
        systems += chosen(choice, plan.variants, systems)
    baseline = plan.config.baseline
    notes = [f"failed: {failure.path.name}: {failure.reason}" for failure in failures]
    notes += _run_notes(systems)
    notes += [note_of(choice, plan.variants) for choice in plan.config.choices]
    if plan.shuffled:
        shown = f"other recordings are shown in {' and '.join(plan.shuffled)} (--shuffled)"
        notes.append(f"a control: {shown}, so that what {' or '.join(plan.shuffled)} answers by itself means nothing")
    if baseline is not None and not any(s.name == baseline for s in systems):
        notes.append(f"no run of the baseline {baseline!r} is finished: nothing is tested")
    return Comparison(
        name=plan.config.name,
        title=plan.config.title,
        dataset=plan.dataset,
        baseline=baseline or "",
        paired_test=plan.config.paired_test,
        notes=(*notes, *_published_notes(plan), *_cost_notes(plan)),
        rows=tuple(summarise(systems, baseline=baseline, paired_test=plan.config.paired_test)),
        cache=str(plan.cache),
        fingerprint=plan.fingerprint,
        published_table=plan.config.published_table or "",
    )


def _run_notes(systems: Sequence[System]) -> list[str]:
    """Return what runs noted, each once, behind the protocols and, where not all lines' runs did, the lines."""
    found = defaultdict[str, tuple[dict[str, None], dict[str, None]]](lambda: ({}, {}))
    for system in systems:
        for data in (run.data() for replicate in system.replicates for run in replicate.runs):
            for note in data.notes:
                protocols, lines = found[note]
                protocols[data.protocol] = lines[system.name] = None
    everyone = {system.name for system in systems}
    of_some = {note: "" if {*lines} == everyone else f" ({', '.join(lines)})" for note, (_, lines) in found.items()}
    return [f"{', '.join(protocols)}{of_some[note]}: {note}" for note, (protocols, _) in found.items()]


def _check_folder(path: Path, plan: GridPlan) -> None:
    if is_finished(path):
        raise InputError(f"{path}: holds a run; name another --out")
    if (path / RESULTS).is_file() and read_comparison(path).fingerprint != plan.fingerprint:
        raise InputError(f"{path}: holds the results of another cache; name another --out")


def _systems(plan: GridPlan) -> list[System]:
    """Return the systems that have at least one replicate whose runs are all finished, in the table's order."""
    systems = []
    for number, variant in enumerate(plan.variants):
        for stage, task in itertools.product(plan.stages, variant.system.tasks or ("",)):
            planned = [c for c in plan.replicates if c.variant is variant and c.stage is stage]
            replicates = [_replicate(c, task) for c in planned if all(is_finished(job.path) for job in c.jobs)]
            if replicates:
                figures = plan.config.figures(variant.name, variant.system.published)
                systems.append(
                    System(
                        name=variant.name,
                        protocol=_label(plan, stage, task),
                        replicates=replicates,
                        factors=variant.factors,
                        published=_published(plan, stage, figures, task),
                        costs=costs_of(replicates, plan.sizes[number, stage.label]) if plan.config.costs else None,
                        task=task,
                    )
                )
    return systems


def _label(plan: GridPlan, stage: Stage, task: str) -> str:
    """Return what the table calls a stage, or a task at it."""
    if not task:
        return stage.label
    return task if len(plan.stages) == 1 else f"{stage.label}, {task}"


def _replicate(planned: PlannedReplicate, task: str) -> Replicate:
    runs = [open_run(job.path) for job in planned.jobs]
    return Replicate(seed=planned.seed, draw=planned.draw, runs=[on_task(run, task) for run in runs] if task else runs)


def _fused(plan: GridPlan, fusion: FusionConfig, systems: Sequence[System], failures: list[FailedRun]) -> list[System]:
    """Fuse the members' runs of every stage, seed and draw for which all members are finished."""
    fused = []
    for stage in plan.stages:
        members = [s for name in fusion.members for s in systems if (s.name, s.protocol) == (name, stage.label)]
        if len(members) < len(fusion.members):
            continue
        replicates = []
        for place in members[0].replicates:
            own = [r for m in members for r in m.replicates if (r.seed, r.draw) == (place.seed, place.draw)]
            if len(own) < len(members):
                continue
            try:
                runs = [_fuse(fusion, runs) for runs in zip(*(r.runs for r in own), strict=True)]
            except IfcarError as error:
                failures.append(FailedRun(path=Path(fusion.name), reason=str(error)))
                continue
            replicates.append(replace(place, runs=runs))
        if replicates:
            published = _published(plan, stage, plan.config.figures(fusion.name, fusion.published))
            fused.append(
                System(name=fusion.name, protocol=stage.label, replicates=replicates, factors={}, published=published)
            )
    return fused


def _fuse(fusion: FusionConfig, members: Sequence[Run]) -> Run:
    """Fuse runs, or open the fusion that an earlier grid made of the same runs."""
    names = [member.path.name for member in members]
    key = hashlib.sha256(json.dumps([names, fusion.weights]).encode()).hexdigest()[:ID_LENGTH]
    path = folder("runs") / f"{ENSEMBLE}-{'+'.join(str(m.config.head) for m in members)}-{key}"
    if is_finished(path):
        return open_run(path)
    return fuse_runs(members, weights="held_out" if fusion.weights == "held_out" else None, out=path).run


def _published(plan: GridPlan, stage: Stage, published: Mapping[str, float], task: str = "") -> dict[str, float]:
    """Return the published figures of a stage: "top1@STAGE", or "top1" of the only stage; none on other data.

    Those of a task are "top1@STREAM/SPACE".
    """
    if plan.other_data[stage.label]:
        return {}
    out: dict[str, float] = {}
    for key in MEASURES:
        for name in (f"{key}@{task}",) if task else (f"{key}@{stage.label}", key):
            if name in published:
                out.setdefault(key, published[name])
    return out


def _cost_notes(plan: GridPlan) -> list[str]:
    return [extraction_note(plan.cache, plan.num_rows)] if plan.config.costs else []


def _published_notes(plan: GridPlan) -> list[str]:
    if plan.config.published_data() is None:
        return []
    others = [f"{stage}: {reason}" for stage, reason in plan.other_data.items() if reason]
    return [f"no published figures beside {'; '.join(others)}"] if others else []
