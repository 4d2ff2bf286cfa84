"""`ifcar runs …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.options import Json, say
from ifcar.console import print_json


def rm(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, finished or stopped.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Remove run folders; one that another run was fused or started from stays until that run goes too."""
    from ifcar.pipelines.runs.removal import remove_runs

    remove_runs(runs)
    if as_json:
        print_json({"removed": runs})
        return
    for path in runs:
        say(f"{path}: removed")
