"""Options that several commands share, and what they print in the same way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifcar.cache.addresses import place_of
from ifcar.commands.config_options import was_given
from ifcar.console import print_table
from ifcar.errors import InputError
from ifcar.terminal import printable

if TYPE_CHECKING:
    from ifcar.pipelines.runs.finished import Run
    from ifcar.pipelines.runs.schedule import ScheduleConfig
    from ifcar.pipelines.scoring.scores import Metrics


def place(path: Path | None) -> Path | None:
    """Return an option's path, as an address where it is one."""
    return None if path is None else place_of(path)


def places(paths: list[Path]) -> list[Path]:
    """Return an argument's paths, each as an address where it is one."""
    return [place_of(path) for path in paths]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
CacheOption = Annotated[
    Path | None, typer.Option(help="Cache to use; default: the only one in caches/.", callback=place)
]
CacheArgument = Annotated[
    Path,
    typer.Argument(
        help="The cache: NAME.zarr, an exported NAME.h5, its address in object storage, or NAME.parts.json.",
        callback=place,
    ),
]
ConfigFile = Annotated[Path | None, typer.Option(help="A run's config.yaml, in place of the options that it states.")]
RunFolder = Annotated[Path | None, typer.Option(help="Run folder; default: a fresh one in runs/.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in --out.")]

MOST_NOTES = 20
HEAD = ("streams", "aux_weight", "aux_weights", "settings")
"""Fields of a `SystemConfig` that say how its head differs from the preset."""


def refuse_ignored(context: typer.Context, ignored: Collection[str], why: str) -> None:
    """Refuse options that were given and would change nothing.

    Args:
        context: of the command; knows what was given.
        ignored: names of the parameters that would be ignored.
        why: what makes that so, and what to do.

    Raises:
        InputError: one of them was given.
    """
    for parameter in context.command.params:
        if parameter.name in ignored and was_given(context, str(parameter.name)):
            raise InputError(f"{parameter.opts[0]} would be ignored: {why}")


def refuse_beside_config(context: typer.Context, config: Path, kept: Collection[str]) -> None:
    """Refuse options that were given beside a run's config, which states all but `kept` of them."""
    stated = {str(parameter.name) for parameter in context.command.params}.difference(kept)
    refuse_ignored(context, stated, f"{config} states the whole run; leave it out, or change a copy of that file")


def schedule_from(given: Mapping[str, Any]) -> ScheduleConfig:
    """Return the schedule with the given options.

    Raises:
        InputError: a value out of range, or an option that this kind of schedule would ignore.
    """
    from ifcar.pipelines.runs.schedule import OF_STRETCHED, ScheduleConfig, unused_of

    given = {"kind": "auto", **given}
    for name in unused_of(given, given["kind"]):
        option = "--no-refit" if given[name] is False else f"--{name.replace('_', '-')}"
        raise InputError(
            f"{option} would be ignored: it belongs to --schedule stretched, and this one is {given['kind']}"
        )
    if given["kind"] == "auto" and not given.keys().isdisjoint(OF_STRETCHED):
        given["kind"] = "stretched"
    if {"epochs", "min_steps"} <= given.keys():
        raise InputError("--epochs and --min-steps exclude each other; give one of them")
    return ScheduleConfig(**given)


def print_metrics(run: Run) -> None:
    """Print a run's metrics, one line a part."""
    titles, percents = measured(run.metrics)
    rows = [[m.split, str(m.n), *own, f"{m.loss:.3f}"] for m, own in zip(run.metrics, percents, strict=True)]
    print_table(str(run.path), ["part", "n", *titles, "loss"], rows)
    say_notes(run.data().notes)


def measured(metrics: Sequence[Metrics]) -> tuple[list[str], list[list[str]]]:
    """Return what tables call the measures that any of these have, and those of each in percent, "–" for none."""
    from ifcar.pipelines.labels.contract import MEASURES

    keys = [key for key in MEASURES if any(key in m.measures() for m in metrics)]
    percents = [[f"{100 * m.measures()[key]:.1f}" if key in m.measures() else "–" for key in keys] for m in metrics]
    return [MEASURES[key] for key in keys], percents


def say_notes(notes: Sequence[str], most: int | None = None) -> None:
    """Print notes to stdout, a line each, `most` of them."""
    for note in notes[:most]:
        say(f"note: {note}")
    if most is not None and len(notes) > most:
        say(f"note: … and {len(notes) - most} more (all with --json)")


def say(line: str) -> None:
    """Print one line to stdout."""
    typer.echo(printable(line))
