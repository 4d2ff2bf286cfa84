"""`ifcar grid` and `ifcar few-shot`: many runs and one table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import (
    Address,
    Aux,
    AuxWeight,
    CacheOption,
    Device,
    Engine,
    FleetSize,
    HeadSettings,
    Json,
    Processes,
    Rows,
    Streams,
    aux_weights_from,
    refuse_ignored,
    say,
    schedule_from,
)
from ifcar.console import Screen, print_json, print_table
from ifcar.errors import InputError
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.shell_words import command

if TYPE_CHECKING:
    from ifcar.pipelines.grid.plan import GridPlan
    from ifcar.pipelines.grid.run import GridResult


TRAINING = ("processes", "fleet", "device", "memory", "engine", "address", "out")


def grid(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Grid file, or the name of a shipped one: `ifcar list grids`.")],
    cache: CacheOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs with their ids; train nothing.")] = False,
    processes: Processes = None,
    fleet: FleetSize = None,
    device: Device = None,
    memory: Rows = "auto",
    engine: Engine = "local",
    address: Address = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the table; default: runs/NAME.")] = None,
    as_json: Json = False,
) -> None:
    """Train every run of a grid file that is not there yet, and write one table with intervals and tests."""
    from ifcar.pipelines.engines.choice import cluster_config
    from ifcar.pipelines.feed.memory import parse_memory
    from ifcar.pipelines.folders import only_cache
    from ifcar.pipelines.grid.config import read_grid
    from ifcar.pipelines.grid.plan import plan_grid
    from ifcar.pipelines.grid.run import run_grid

    if dry_run:
        refuse_ignored(context, TRAINING, "--dry-run lists the runs and trains none; leave one of the two out")
    cluster = cluster_config(engine, address)
    plan = plan_grid(read_grid(file), only_cache(cache))
    if dry_run:
        _print_plan(plan, as_json=as_json)
        return
    result = run_grid(
        plan,
        Screen(quiet=as_json),
        out=out,
        processes=processes,
        device=device,
        fleet_size=fleet,
        cluster=cluster,
        memory=parse_memory(memory),
    )
    show_grid(result, as_json=as_json)


@with_config_options
def few_shot(
    *,
    head: Annotated[str, typer.Argument(help="One of `ifcar list heads`.")],
    shots: Annotated[list[int] | None, typer.Option(help="Clips a novel class; again for more (5, 10).")] = None,
    cache: CacheOption = None,
    run: Annotated[Given, OptionsOf(RunConfig, only=("preset", "labels"))],
    streams: Streams = None,
    aux_weight: AuxWeight = 0.0,
    aux: Aux = None,
    setting: HeadSettings = None,
    train: Annotated[
        str, typer.Option(help="What fine-tuning moves: classifier (the last layer, as published) or all.")
    ] = "classifier",
    schedule: Annotated[Given, OptionsOf(ScheduleConfig, only=("kind", "min_steps"), of="Of the base training: ")],
    tune_schedule: Annotated[
        str | None, typer.Option(help="Of the fine-tuning: paper or stretched; default: as the base training's.")
    ] = None,
    tune_steps: Annotated[
        int | None, typer.Option(help="Fewest steps of a stretched fine-tuning (classifier 1000, all 300).")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Again for more runs; default: 0.")] = None,
    processes: Processes = None,
    fleet: FleetSize = None,
    device: Device = None,
    memory: Rows = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of the table; default: runs/few-shot-HEAD.")] = None,
    as_json: Json = False,
) -> None:
    """Train a head on base classes, fine-tune it on 5 or 10 clips of each novel class, and test it on these."""
    from ifcar.pipelines.configs import parse_assignment
    from ifcar.pipelines.feed.memory import parse_memory
    from ifcar.pipelines.few_shot import few_shot_grid
    from ifcar.pipelines.folders import only_cache
    from ifcar.pipelines.grid.plan import TUNING, plan_grid
    from ifcar.pipelines.grid.run import run_grid

    if train not in ("classifier", "all"):
        raise InputError(f"--train is {train!r}; expected classifier or all")
    tuning = None
    if tune_schedule is not None or tune_steps is not None:
        kind, (num_steps, lr) = tune_schedule or "stretched", TUNING[train]
        if kind != "stretched" and tune_steps is not None:
            raise InputError("--tune-steps would be ignored: it belongs to --tune-schedule stretched; leave it out")
        steps = {"min_steps": tune_steps or num_steps} if kind == "stretched" else {}
        rate = {"lr": lr} if kind == "stretched" else {}
        tuning = schedule_from({"kind": kind, "held_out": 0.0, **steps, **rate})
    config = few_shot_grid(
        head,
        shots=shots or (5, 10),
        train="all" if train == "all" else "classifier",
        streams=streams,
        aux_weight=aux_weight,
        aux_weights=aux_weights_from(aux),
        settings=dict(parse_assignment(text) for text in setting or ()),
        schedule=schedule_from(schedule.read()),
        tune_schedule=tuning,
        seeds=seed or (0,),
        **run.read(),
    )
    plan = plan_grid(config, only_cache(cache))
    result = run_grid(
        plan,
        Screen(quiet=as_json),
        out=out,
        processes=processes,
        device=device,
        fleet_size=fleet,
        memory=parse_memory(memory),
    )
    show_grid(result, as_json=as_json)


def _print_plan(plan: GridPlan, *, as_json: bool) -> None:
    from ifcar.pipelines.runs.config import run_id
    from ifcar.pipelines.runs.finished import is_finished

    rows = []
    for cell in plan.cells:
        for job in cell.jobs:
            state = "done" if is_finished(job.path) else "stopped" if job.path.exists() else "to do"
            name, protocol = cell.variant.name, job.config.protocol
            rows.append([name, protocol, cell.seed, run_id(job.config)[:12], state, str(job.path)])
    columns = ["system", "protocol", "seed", "id", "state", "folder"]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    print_table(f"{plan.config.name}: {len(plan.jobs())} runs on {plan.cache}", columns, rows)
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
        for note in comparison.notes:
            say(f"note: {note}")
        say(f"{result.num_runs} runs, {result.num_made} of them made now; tables: {result.folder}/table.md, .tex, .csv")
        say(f"Next: {command('ifcar', 'report', result.folder)}")
    if result.failures:
        raise typer.Exit(1)
