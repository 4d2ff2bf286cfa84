"""`ifcar fit-head` and `ifcar evaluate`: one head, trained from a cache and scored again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import (
    HEAD,
    CacheOption,
    ConfigFile,
    Json,
    Resume,
    RunFolder,
    measured,
    print_metrics,
    refuse_beside_config,
    say,
    schedule_from,
)
from ifcar.console import Screen, print_json, print_table
from ifcar.errors import InputError
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.runs.config import FineTuneConfig, RunConfig
from ifcar.pipelines.runs.distil import DistilConfig
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.machine import MachineConfig
from ifcar.shell_words import command

if TYPE_CHECKING:
    from ifcar.pipelines.training.together import FitResult

BESIDE_CONFIG = ("head", "config", "cache", "device", "memory", "out", "resume", "as_json")
"""Parameters that count beside --config, or beside the config of the run to resume."""


@with_config_options
def fit_head(
    context: typer.Context,
    *,
    head: Annotated[str | None, typer.Argument(help="One of `ifcar list heads`; not with --config.")] = None,
    cache: CacheOption = None,
    run: Annotated[Given, OptionsOf(RunConfig, stated={"protocol": "compositional, or the only one"})],
    of_head: Annotated[Given, OptionsOf(SystemConfig, only=(*HEAD, "views", "augmented_views"))],
    schedule: Annotated[Given, OptionsOf(ScheduleConfig, without=("held_out",))],
    start: Annotated[Given, OptionsOf(FineTuneConfig, stated={"base": ""})],
    distil: Annotated[Given, OptionsOf(DistilConfig, stated={"runs": ""})],
    config: ConfigFile = None,
    machine: Annotated[Given, OptionsOf(MachineConfig, only=("device", "memory"))],
    out: RunFolder = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train one head from a cache and evaluate it on the protocol's test clips."""
    from dataclasses import replace

    from ifcar.heads.catalog import HEADS
    from ifcar.pipelines.fit import fit
    from ifcar.pipelines.folders import only_cache
    from ifcar.pipelines.runs.finished import read_config, read_remark
    from ifcar.pipelines.runs.resolve import make_run_config

    if resume and out is None:
        raise InputError("--resume needs --out, the folder of the stopped run")
    where, screen = machine.read(), Screen(quiet=as_json)
    if config is not None or (resume and head is None and out is not None):
        source = config or Path(str(out)) / "config.yaml"
        read = read_config(source)
        if head is not None or not isinstance(read, RunConfig):
            raise InputError(f"{source}: give a head's config alone, without a head name")
        refuse_beside_config(context, source, BESIDE_CONFIG)
        for line in read_remark(source):
            screen.say(f"{source}: {line}")
        run_config = read if cache is None else replace(read, cache=cache)
    elif head is None:
        raise InputError("name a head (`ifcar list heads`), or give --config")
    else:
        HEADS.get(head)  # a misspelt head is said before a cache that is missing
        run_config = make_run_config(
            head,
            only_cache(cache),
            schedule=schedule_from(schedule.read()),
            **of_head.read(),
            **run.read(),
        )
        taken = start.read()
        if "base" in taken:
            run_config = replace(run_config, fine_tune=FineTuneConfig(**taken, train="all"))
        elif taken:
            part = taken["parts"][0]
            raise InputError(f"--part {part} would be ignored: it is taken from another run; name it with --start")
        learned = distil.read()
        if "runs" in learned:
            run_config = replace(run_config, distil_from=DistilConfig(**learned))
        elif learned:
            name = next(iter(learned))
            raise InputError(f"--distil-{name} would be ignored: there is no teacher; name one with --distil-from")
    result = fit(run_config, screen, out=out, resume=resume, **where)
    _say_fitted(result, as_json)


def _say_fitted(result: FitResult, as_json: bool) -> None:
    from ifcar.pipelines.ensemble import partner
    from ifcar.pipelines.scoring.gaps import describe_gaps

    used = f"{result.plan.describe()}, {result.steps:,} steps"
    if result.best_step is not None:
        used += f"; stopping point step {result.best_step:,}, chosen on the held-out part of the training split"
        used += ", then trained again on all of it" if result.refit else ""
    gap = describe_gaps(result.run.metrics)
    if as_json:
        metrics, notes = [m.record() for m in result.run.metrics], result.run.data().notes
        print_json({"run": result.run.path, "schedule": used, "metrics": metrics, "notes": notes, "gap": gap or None})
        return
    print_metrics(result.run)
    if gap:
        say(gap)
    say(f"Used: {used}.")
    evaluation = command("ifcar", "evaluate", result.run.path)
    fused = partner(result.run)
    fusion = "" if fused is None else f", or {command('ifcar', 'ensemble', result.run.path, fused.path)}"
    say(f"Next: {evaluation} (per class){fusion}.")


@with_config_options
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    options: Annotated[Given, OptionsOf(EvaluateConfig)],
    as_json: Json = False,
) -> None:
    """Score a run's test clips again from its weights and cache: top-1 and top-5, or mAP, and per class."""
    from ifcar.pipelines.evaluate import evaluate as run_evaluate
    from ifcar.pipelines.labels.contract import MEASURES

    config = EvaluateConfig(**options.read())
    result = run_evaluate(run, config)
    if as_json:
        print_json(result.record())
    else:
        m = result.metrics
        columns = {"top1": "top-1"} if m.map is None else {"ap": "AP"}
        if result.frame_map is not None:
            columns["frame_ap"] = "frame AP"
        print_table(
            f"{run}, per class",
            ["class", "n", *columns.values()],
            [[str(c["class"]), str(c["n"]), *(f"{100 * c[key]:.1f}" for key in columns)] for c in result.classes],
        )
        titles, (percents,) = measured([m])
        parts = [f"{name} {value}" for name, value in zip(titles, percents, strict=True)]
        say(f"test, n = {m.n}: {', '.join([*parts, f'loss {m.loss:.3f}'])}")
        if result.by_group is not None:
            group, n, *scores = result.by_group.items()
            shown = ", ".join(f"{MEASURES[key]} {100 * value:.1f}" for key, value in scores)
            say(f"by {group[1]}, the mean logits of its clips: n = {n[1]}, {shown}")
        if result.frame_map is not None:
            say(f"frame mAP at IoU 0.5, of the annotated boxes: {100 * result.frame_map:.1f}")
        if config.detections is not None:
            say(f"The scored boxes are in {config.detections}.")
        if result.note:
            say(f"note: {result.note}")
        if result.agrees is not None:
            state = "the same" if result.agrees else "NOT the same (over 1e-4 apart)"
            say(f"The logits stored with the run are {state}.")
    if result.agrees is False:
        raise typer.Exit(1)
