"""`ifcar grid` and `ifcar few-shot`: many runs and one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import HEAD, CacheOption, Json, refuse_ignored, say, say_notes, schedule_from
from ifcar.console import Screen, json_rows, print_json, print_table
from ifcar.counts import count_of
from ifcar.errors import InputError
from ifcar.pipelines.engines.cluster import EngineConfig, RayConfig
from ifcar.pipelines.grid.config import FewShotConfig, GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.machine import MachineConfig
from ifcar.shell_words import command

if TYPE_CHECKING:
    from ifcar.pipelines.grid.plan import GridPlan
    from ifcar.pipelines.grid.run import GridResult


TRAINING = ("processes", "fleet_size", "device", "memory", "engine", "address", "out")
TUNE_FLAGS = {"kind": "--tune-schedule", "min_steps": "--tune-steps"}
TUNE_STATED = {"kind": "as the base training's", "min_steps": "1000 of the classifier, 300 of all"}


@with_config_options
def grid(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="Grid file, or the name of a shipped one: `ifcar list grids`.")],
    cache: CacheOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs with their ids; train nothing.")] = False,
    machine: Annotated[Given, OptionsOf(MachineConfig)],
    engine: Annotated[Given, OptionsOf(EngineConfig, RayConfig, only=("engine", "address"))],
    out: Annotated[Path | None, typer.Option(help="Folder of the table; default: runs/NAME.")] = None,
    as_json: Json = False,
) -> None:
    """Train every run of a grid file that is not there yet, and write one table with intervals and tests."""
    from ifcar.pipelines.engines.choice import cluster_config
    from ifcar.pipelines.folders import only_cache
    from ifcar.pipelines.grid.config import read_grid
    from ifcar.pipelines.grid.plan import plan_grid
    from ifcar.pipelines.grid.run import grid as run_grid

    if dry_run:
        refuse_ignored(context, TRAINING, "--dry-run lists the runs and trains none; leave one of the two out")
    cluster, chosen = cluster_config(engine.read()), MachineConfig(**machine.read())
    if dry_run:
        _print_plan(plan_grid(read_grid(file), only_cache(cache)), as_json=as_json)
        return
    show_grid(run_grid(file, cache, Screen(quiet=as_json), chosen, out=out, cluster=cluster), as_json=as_json)


@with_config_options
def few_shot(
    *,
    head: Annotated[str, typer.Argument(help="One of `ifcar list heads`.")],
    few_shots: Annotated[Given, OptionsOf(FewShotConfig)],
    cache: CacheOption = None,
    run: Annotated[Given, OptionsOf(RunConfig, only=("preset", "labels"))],
    of_head: Annotated[Given, OptionsOf(SystemConfig, only=HEAD)],
    schedule: Annotated[Given, OptionsOf(ScheduleConfig, only=("kind", "min_steps"), of="Of the base training: ")],
    tuning: Annotated[
        Given, OptionsOf(ScheduleConfig, only=(), flags=TUNE_FLAGS, of="Of the fine-tuning: ", stated=TUNE_STATED)
    ],
    seeds: Annotated[Given, OptionsOf(GridConfig, only=("seeds",), stated={"seeds": "0"})],
    machine: Annotated[Given, OptionsOf(MachineConfig)],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the table.", show_default="runs/few-shot-HEAD, and what is chosen")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a head on base classes, fine-tune it on 5 or 10 clips of each novel class, and test it on these."""
    from ifcar.pipelines.few_shot import few_shot_grid
    from ifcar.pipelines.folders import only_cache
    from ifcar.pipelines.grid.plan import plan_grid
    from ifcar.pipelines.grid.run import run_grid

    chosen = run.read()
    config = few_shot_grid(
        SystemConfig(name=head, head=head, preset=chosen.pop("preset", None), **of_head.read()),
        _with_tuning(FewShotConfig(**few_shots.read()), tuning.read()),
        schedule=schedule_from(schedule.read()),
        **seeds.read(),
        **chosen,
    )
    where = MachineConfig(**machine.read())
    plan = plan_grid(config, only_cache(cache))
    show_grid(run_grid(plan, Screen(quiet=as_json), where, out=out), as_json=as_json)


def _with_tuning(config: FewShotConfig, given: Mapping[str, Any]) -> FewShotConfig:
    """Return the config with the schedule of its fine-tuning, where anything was given of one."""
    from ifcar.pipelines.grid.run_configs import TUNING

    if not given:
        return config
    kind, (num_steps, lr) = given.get("kind", "stretched"), TUNING[config.train]
    if kind != "stretched":
        if "min_steps" in given:
            raise InputError("--tune-steps would be ignored: it belongs to --tune-schedule stretched; leave it out")
        return replace(config, schedule=ScheduleConfig(kind=kind, held_out=0.0))
    schedule = ScheduleConfig(kind=kind, held_out=0.0, min_steps=given.get("min_steps", num_steps), lr=lr)
    return replace(config, schedule=schedule)


def _print_plan(plan: GridPlan, *, as_json: bool) -> None:
    from ifcar.pipelines.runs.config import run_id
    from ifcar.pipelines.runs.finished import is_finished

    rows = []
    for planned in plan.replicates:
        for job in planned.jobs:
            state = "done" if is_finished(job.path) else "stopped" if job.path.exists() else "to do"
            name, protocol = planned.variant.name, job.config.protocol
            rows.append([name, protocol, planned.seed, run_id(job.config)[:12], state, str(job.path)])
    columns = ["system", "protocol", "seed", "id", "state", "folder"]
    if as_json:
        print_json(json_rows(columns, rows))
        return
    print_table(f"{plan.config.name}: {count_of(len(plan.jobs()), 'run')} on {plan.cache}", columns, rows)
    for fusion in plan.config.ensembles:
        say(f"fused: {fusion.name} = {' + '.join(fusion.members)}")


def show_grid(result: GridResult, *, as_json: bool) -> None:
    """Print a grid's table, and exit with 1 when a run failed."""
    from ifcar.pipelines.comparison.formats import caption, cells

    comparison = result.comparison
    if as_json:
        print_json({**asdict(comparison), "folder": result.folder, "failed": [asdict(f) for f in result.failures]})
    else:
        header, rows = cells(comparison)
        print_table(comparison.title or comparison.name, header, rows)
        say(caption(comparison))
        say_notes(comparison.notes)
        runs = count_of(result.num_runs, "run")
        say(f"{runs}, {result.num_made} of them made now; tables: {result.folder}/table.md, .tex, .csv")
        say(f"Next: {command('ifcar', 'report', result.folder)}")
    if result.failures:
        raise typer.Exit(1)
