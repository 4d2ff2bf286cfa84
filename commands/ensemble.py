"""`ifcar ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import Json, RunFolder, measured, say, say_notes
from ifcar.console import print_json, print_table
from ifcar.pipelines.runs.questions import FusionWeights


@with_config_options
def ensemble(
    runs: Annotated[list[Path] | None, typer.Argument(help="Runs; default: newest i3d and newest relational.")] = None,
    *,
    weights: Annotated[Given, OptionsOf(FusionWeights)],
    out: RunFolder = None,
    as_json: Json = False,
) -> None:
    """Fuse runs late: the weighted average of their class probabilities."""
    from ifcar.pipelines.ensemble import ensemble as run_ensemble

    result = run_ensemble(runs or [], weights=FusionWeights(**weights.read()).shares, out=out)
    if as_json:
        members = [m.path for m in result.members]
        metrics = [m.record() for m in result.run.metrics]
        made = {"run": result.run.path, "members": members, "weights": result.weights}
        print_json({**made, "metrics": metrics, "notes": result.run.data().notes})
        return
    lines = [*result.members, result.run]
    tests = [test for run in lines if (test := run.metric("test")) is not None]
    titles, percents = measured(tests)
    shares = [*(f"{weight:.3f}" for weight in result.weights), ""]
    rows = [
        [str(run.path), share, str(test.n), *own]
        for run, share, test, own in zip(lines, shares, tests, percents, strict=True)
    ]
    print_table("late fusion, test clips", ["run", "weight", "n", *titles], rows)
    say_notes(result.run.data().notes)
    if not runs:
        say("Fused: the newest finished i3d run and the newest finished relational run of the same cache and protocol.")
