"""`ifcar list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.options import Json, say
from ifcar.console import json_rows, print_json, print_table
from ifcar.errors import InputError, nearest
from ifcar.pipelines.folders import folder


def list_(
    what: Annotated[
        str | None,
        typer.Argument(help="datasets, backbones, detectors, heads, caches, runs, grids or published (papers')."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="With backbones: those that this folder of weights fits, and what it gives.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="With runs: those of this head.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="With runs: those of this cache, its path or the end of it.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="With runs: those of this protocol.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="With runs: COLUMN>VALUE, as 'top1>60', or with = != ~ < <= >=; again for more."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="With runs: the column to sort by; -COLUMN: the largest first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what there is."""
    from ifcar.pipelines.labels.contract import MEASURES
    from ifcar.pipelines.listing import LISTINGS, list_backbones, list_runs
    from ifcar.pipelines.runs.query import RunQuery

    if what is None:
        raise InputError(f"name what to list: one of {', '.join(LISTINGS)}")
    if what not in LISTINGS:
        raise InputError(f"cannot list {what!r}{nearest(what, LISTINGS, '.')} Expected one of {', '.join(LISTINGS)}")
    if weights is not None and what != "backbones":
        raise InputError(f"--weights {weights} would be ignored: it belongs to `ifcar list backbones`")
    of_runs = {"head": head, "cache": cache, "protocol": protocol, "where": where, "sort": sort}
    given = [name for name, value in of_runs.items() if value]
    if given and what != "runs":
        raise InputError(f"--{given[0]} {of_runs[given[0]]} would be ignored: it belongs to `ifcar list runs`")
    if what == "published" and not as_json:
        _print_published()
        return
    if what == "runs":
        columns, rows = list_runs(
            RunQuery(head=head, cache=cache, protocol=protocol, where=tuple(where or ()), sort=sort)
        )
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
