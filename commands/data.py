"""`ifcar data …`."""

from __future__ import annotations

from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import MOST_NOTES, Json, say, say_notes
from ifcar.console import Screen, print_json, print_table
from ifcar.pipelines.data_check.config import OF_EXTRACTION, DataCheckConfig
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.shell_words import quoted


def commands() -> None:
    """Look at a data set before it is extracted."""


@with_config_options
def check(
    context: typer.Context,
    options: Annotated[Given, OptionsOf(ExtractConfig, only=OF_EXTRACTION)],
    own: Annotated[Given, OptionsOf(DataCheckConfig)],
    as_json: Json = False,
) -> None:
    """Look at every clip as extract would read it and write one page; exit 1 where something is silently wrong."""
    from ifcar.pipelines.data_check.check import check_data
    from ifcar.pipelines.data_check.page import WORDS, counted, verdict

    result = check_data(ExtractConfig(**options.read()), DataCheckConfig(**own.read()), Screen(quiet=as_json))
    if as_json:
        print_json(
            {
                "page": result.page,
                "clips": result.num_clips,
                "examined": result.num_examined,
                "silently_wrong": result.num_wrong > 0,
                "checks": [
                    {
                        "name": found.check,
                        "title": found.title,
                        "clips": {WORDS[severity]: count for severity, count in found.counts.items()},
                        "examples": [
                            {"clip": result.clip_ids[number], "severity": WORDS[finding.severity], "what": finding.text}
                            for number, finding in found.examples
                        ],
                    }
                    for found in result.found
                ],
                "notes": result.notes,
                "errata": [{"what": erratum.text, "source": erratum.source} for erratum in result.errata],
            }
        )
    else:
        say_notes(result.notes, MOST_NOTES)
        rows = []
        for found in result.found:
            first = f"{result.clip_ids[found.examples[0][0]]}: {found.examples[0][1].text}" if found.examples else ""
            rows.append([found.title, counted(found) or "–", first])
        print_table(
            f"{result.num_examined:,} of {result.num_clips:,} clips", ["looked for", "clips", "the worst"], rows
        )
        say(f"{verdict(result.found)}. Next: open {quoted(result.page)} in a browser; it needs no network")
    if result.num_wrong:
        raise typer.Exit(1)
