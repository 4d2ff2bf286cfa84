"""`ifcar demo`."""

from __future__ import annotations

from typing import Annotated

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.grid import show_grid
from ifcar.commands.options import Json, say
from ifcar.console import Screen
from ifcar.pipelines.training.machine import MachineConfig
from ifcar.shell_words import quoted


@with_config_options
def demo(machine: Annotated[Given, OptionsOf(MachineConfig, only=("processes",))], as_json: Json = False) -> None:
    """Go the whole way on generated videos: render, extract, train six heads over three seeds, fuse, report."""
    from ifcar.pipelines.demo import demo as run_demo

    result = run_demo(Screen(quiet=as_json), MachineConfig(**machine.read()))
    if not as_json:
        say(f"Report: open {quoted(result.report.page)} in a browser; it needs no network")
    show_grid(result.grid, as_json=as_json)
