"""`ifcar ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ifcar.commands.options import Json, RunFolder, measured, say
from ifcar.console import print_json, print_table
from ifcar.errors import InputError


def ensemble(
    runs: Annotated[list[Path] | None, typer.Argument(help="Runs; default: newest i3d and newest relational.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="One number a run, comma-separated, or held-out; default: equal.")
    ] = None,
    out: RunFolder = None,
    as_json: Json = False,
) -> None:
    """Fuse runs late: the weighted average of their class probabilities."""
    from ifcar.pipelines.ensemble import ensemble as run_ensemble

    result = run_ensemble(runs or [], weights=_parse_weights(weights), out=out)
    if as_json:
        members = [m.path for m in result.members]
        metrics = [m.record() for m in result.run.metrics]
        print_json({"run": result.run.path, "members": members, "weights": result.weights, "metrics": metrics})
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
    for note in result.run.data().notes:
        say(f"note: {note}")
    if not runs:
        say("Fused: the newest finished i3d run and the newest finished relational run of the same cache and protocol.")


def _parse_weights(text: str | None) -> Any:
    if text is None:
        return None
    if text in ("held-out", "held_out"):
        return "held_out"
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--weights is {text!r}; expected numbers such as 0.4,0.6, or held-out") from None
