"""`ifcar list`."""

from __future__ import annotations

from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import Json, say
from ifcar.config_fields import words_of
from ifcar.console import json_rows, print_json, print_table
from ifcar.errors import InputError, nearest
from ifcar.pipelines.folders import folder
from ifcar.pipelines.runs.query import RunQuery


@with_config_options
def list_(
    what: Annotated[
        str | None,
        typer.Argument(help="datasets, backbones, detectors, heads, caches, runs, grids or published (papers')."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="With backbones: those that this folder of weights fits, and what it gives.")
    ] = None,
    *,
    query: Annotated[Given, OptionsOf(RunQuery)],
    as_json: Json = False,
) -> None:
    """List what there is."""
    from ifcar.pipelines.labels.contract import MEASURES
    from ifcar.pipelines.listing import LISTINGS, list_backbones, list_runs

    if what is None:
        raise InputError(f"name what to list: one of {', '.join(LISTINGS)}")
    if what not in LISTINGS:
        raise InputError(f"cannot list {what!r}{nearest(what, LISTINGS, '.')} Expected one of {', '.join(LISTINGS)}")
    if weights is not None and what != "backbones":
        raise InputError(f"--weights {weights} would be ignored: it belongs to `ifcar list backbones`")
    given = query.read()
    if given and what != "runs":
        words = " ".join(map(str, words_of(RunQuery(**given))))
        raise InputError(f"{words} would be ignored: it belongs to `ifcar list runs`")
    if what == "published" and not as_json:
        _print_published()
        return
    if what == "runs":
        columns, rows = list_runs(RunQuery(**given))
    else:
        columns, rows = LISTINGS[what]() if weights is None else list_backbones(weights)
    if as_json:
        shares = {place for place, column in enumerate(columns) if what == "runs" and column in MEASURES.values()}
        # a score is a share in JSON, under the key that it has in every command's, and a percentage in tables
        print_json(json_rows(columns, ([_share(v) if k in shares else v for k, v in enumerate(row)] for row in rows)))
    else:
        print_table(what, columns, rows)
        if not rows and what == "caches":
            say(f"{folder('caches')}/ holds none; make one with `ifcar extract --dataset DATASET`")
        elif not rows and what == "runs":
            made = " that is as asked" if given else "; make one with `ifcar fit-head HEAD`"
            say(f"{folder('runs')}/ holds none{made}")


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 12)


def _print_published() -> None:
    """Print the papers' tables one by one, each with what holds for all of its rows."""
    from ifcar.pipelines.published.cards import COLUMNS, comparisons_here, table_cards
    from ifcar.pipelines.published.tables import published

    here = comparisons_here()
    for table in published().tables:
        cards = table_cards(table, here)
        print_table(f"{table.name}: {cards[0].source}: {table.what}", COLUMNS, [card.columns() for card in cards])
        made = f"`ifcar grid {table.grid}` reproduces it" if table.grid else "no grid reproduces it"
        say(f"boxes: {table.boxes}; protocol: {table.protocol}; {made}")
        for trap in table.traps:
            say(f"trap: {trap}")
        say("")
