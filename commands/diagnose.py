"""`ifcar diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, reading, with_config_options
from ifcar.commands.options import Json, place, say, say_notes
from ifcar.console import Screen, print_json, print_table
from ifcar.pipelines.training.machine import MachineConfig
from ifcar.shell_words import command


@with_config_options
def diagnose(
    *,
    runs: Annotated[list[Path], typer.Argument(help="Finished runs that differ in their seed only.")],
    seeds: Annotated[bool, typer.Option("--seeds", help="Take the same system's other seeds beside RUN, too.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Make this intervention alone, as time-reversed; may be repeated.")
    ] = None,
    detected: Annotated[
        Path | None,
        typer.Option(help="A cache of the same clips with detected boxes (`ifcar extract --boxes`), to score as well."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="The runs' cache, when it was moved.", callback=place)] = None,
    draw_seed: Annotated[
        int | None,
        typer.Option(
            help="Of random orders, jitter, and which clip stands in; default: 0.", **reading("--draw-seed", int)
        ),
    ] = None,
    machine: Annotated[Given, OptionsOf(MachineConfig, only=("device", "memory"))],
    out: Annotated[
        Path | None, typer.Option(help="Folder of diagnosis.json and .csv; default: the first run's, for the report.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a run's test clips with categories, appearance, layout, time or boxes changed: what does it go by?"""
    from ifcar.pipelines.configs import to_plain
    from ifcar.pipelines.diagnosis.diagnose import diagnose as run_diagnose
    from ifcar.pipelines.diagnosis.table import caption, columns_of, seen_sentence

    result = run_diagnose(
        runs,
        Screen(quiet=as_json),
        all_seeds=seeds,
        cache=cache,
        detected=detected,
        only=only or (),
        draw_seed=draw_seed,
        out=out,
        **machine.read(),
    )
    found = result.diagnosis
    if as_json:
        print_json({**to_plain(found), "files": result.files})
        return
    columns = columns_of(found)
    rows = [[column.text(row) for column in columns] for row in found.rows]
    print_table(f"{found.title}, seed {', '.join(map(str, found.seeds))}", [column.title for column in columns], rows)
    say(caption(found))
    if found.seen is not None:
        say(seen_sentence(found))
    say_notes(found.notes)
    say(f"Written: {', '.join(map(str, result.files))}.")
    if out is None:
        say(f"Next: {command('ifcar', 'report', *found.runs)} draws it beside the runs.")
