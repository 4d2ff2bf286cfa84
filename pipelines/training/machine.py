"""What of a machine training takes; it changes nothing in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.devices import Device
from ifcar.pipelines.feed.memory import Memory


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineConfig:
    """Where one run trains, or many do.

    Args:
        processes: fleets at once; default: one a core, or a single one on a GPU.
        fleet_size: runs in a fleet at most; 1 trains every run alone; default: by free memory.
        device: "cpu", "cuda", "cuda:1", …; default: cuda where there is one.
        memory: where every run keeps its rows, see `ifcar.pipelines.feed.batches.BatchReader`.
    """

    processes: Annotated[int | None, Option("Training processes; default: one a core."), Bounds(least=1)] = None
    fleet_size: Annotated[
        int | None,
        Option("Runs that train together at most, 1: each alone; default: by free memory.", "--fleet"),
        Bounds(least=1),
    ] = None
    device: Device = None
    memory: Annotated[Memory, Option("Keep rows in gpu, ram or on disk (stream); auto: the first where they fit.")] = (
        "auto"
    )

    def __post_init__(self) -> None:
        check_fields(self)
