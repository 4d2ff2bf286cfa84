"""`ifcar report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import Json, say, say_notes
from ifcar.console import Screen, print_json, print_table
from ifcar.counts import count_of
from ifcar.pipelines.report.config import ReportConfig
from ifcar.shell_words import quoted


@with_config_options
def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, or folders of `ifcar grid`; default: every grid in runs/, else every finished run."),
    ] = None,
    *,
    options: Annotated[Given, OptionsOf(ReportConfig)],
    as_json: Json = False,
) -> None:
    """Write one self-contained page of tables, figures and clips, and each figure as SVG, PNG and CSV."""
    from ifcar.pipelines.report.report import report as write_report

    result = write_report(folders or [], Screen(quiet=as_json), ReportConfig(**options.read()))
    if as_json:
        print_json(
            {
                "page": result.page,
                "bytes": result.size_bytes,
                "figures": [{"title": title, "files": files, "rows": rows} for title, files, rows in result.figures],
                "comparisons": [{"title": title, "a": a, "b": b} for title, a, b in result.pairs],
                "notes": result.notes,
            }
        )
        return
    rows = [["the page", str(result.page), f"{result.size_bytes / 2**20:.1f} MiB"]]
    for title, files, count in result.figures:
        rows.append([title, ", ".join([str(files[0]), *(path.suffix for path in files[1:])]), count_of(count, "row")])
    print_table("report", ["what", "file", "size"], rows)
    for title, a, b in result.pairs:
        if b:
            say(f"{title}: A is {a}, B is {b}; choose others with --compare A --with B")
    say_notes(result.notes)
    say(f"Next: open {quoted(result.page)} in a browser; it needs no network")
