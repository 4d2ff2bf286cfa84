"""Options that several commands share, and what they print in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifcar.console import print_table, printable

if TYPE_CHECKING:
    from ifcar.pipelines.runs.finished import Run
    from ifcar.pipelines.scoring.scores import Metrics
    from ifcar.pipelines.training.schedule import ScheduleConfig

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
CacheOption = Annotated[Path | None, typer.Option(help="Cache to use; default: the only one in caches/.")]
CacheArgument = Annotated[Path, typer.Argument(help="Path of the cache, NAME.zarr or an exported NAME.h5.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …; default: cuda where there is one.")]
FleetSize = Annotated[
    int | None,
    typer.Option("--fleet", min=1, help="Runs that train together at most, 1: each alone; default: by free memory."),
]
Rows = Annotated[
    str, typer.Option("--memory", help="Keep rows in gpu, ram or on disk (stream); auto: the first where they fit.")
]
Engine = Annotated[str, typer.Option(help="local, or ray: the machines of a Ray cluster (pip install 'ifcar[ray]').")]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster: auto (default), HOST:PORT, or local.")]
Processes = Annotated[int | None, typer.Option(help="Training processes; default: one a core.")]


def schedule_from(**values: Any) -> ScheduleConfig:
    """Return the schedule with the given options; None leaves a default."""
    from ifcar.pipelines.configs import from_plain
    from ifcar.pipelines.training.schedule import ScheduleConfig

    return from_plain(ScheduleConfig, {k: v for k, v in values.items() if v is not None}, "options")


def print_metrics(run: Run) -> None:
    """Print a run's metrics, one line a part."""
    rows = [[m.split, str(m.n), *percents(m), f"{m.loss:.3f}"] for m in run.metrics]
    print_table(str(run.path), ["part", "n", *titles(run.metrics[0]), "loss"], rows)


def titles(metrics: Metrics) -> list[str]:
    """Return what tables call the measures of these metrics."""
    from ifcar.pipelines.labels.kinds import MEASURES

    return [MEASURES[key] for key in metrics.measures()]


def percents(metrics: Metrics) -> list[str]:
    """Return the measures of these metrics in percent."""
    return [f"{100 * value:.1f}" for value in metrics.measures().values()]


def say(line: str) -> None:
    """Print one line to stdout."""
    typer.echo(printable(line))
