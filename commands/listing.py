"""`ifcar list`."""

from __future__ import annotations

from typing import Annotated

import typer

from ifcar.commands.options import Json
from ifcar.console import print_json, print_table
from ifcar.errors import InputError


def list_(
    what: Annotated[str, typer.Argument(help="datasets, backbones, detectors, heads, caches, runs or grids.")],
    weights: Annotated[
        str | None, typer.Option(help="With backbones: those that this folder of weights fits, and what it gives.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what there is."""
    from ifcar.pipelines.listing import LISTINGS, list_backbones

    if what not in LISTINGS:
        raise InputError(f"cannot list {what!r}; expected one of {', '.join(LISTINGS)}")
    if weights is not None and what != "backbones":
        raise InputError(f"--weights {weights} would be ignored: it belongs to `ifcar list backbones`")
    columns, rows = LISTINGS[what]() if weights is None else list_backbones(weights)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(what, columns, rows)
