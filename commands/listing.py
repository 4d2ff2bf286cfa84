"""`ifcar list`."""

from __future__ import annotations

from typing import Annotated

import typer

from ifcar.commands.options import Json
from ifcar.console import print_json, print_table
from ifcar.errors import InputError


def list_(
    what: Annotated[str, typer.Argument(help="datasets, backbones, heads, caches, runs or grids.")],
    as_json: Json = False,
) -> None:
    """List what there is."""
    from ifcar.pipelines.listing import LISTINGS

    if what not in LISTINGS:
        raise InputError(f"cannot list {what!r}; expected one of {', '.join(LISTINGS)}")
    columns, rows = LISTINGS[what]()
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(what, columns, rows)
