"""Part fleets of `benchmarks/gpu.py`: the time of a run and step in fleets, over that of a run alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fleet_steps import FleetSteps
from fleets import fitting_sizes, make_config, write_rows
from gpu_rows import Rows
from machine import interleaved, median

from ifcar.pipelines.fleets.pool import prepare_worker
from ifcar.pipelines.runs.config import RunConfig

GOAL_AT_16 = 0.25
SMALL_BATCH = 4


def run(rows: Rows) -> None:
    """Measure both sizes: own seeds, one seed, and then bf16."""
    prepare_worker()
    sizes = {"toybox": (1, 4)} if rows.small else {"toybox": (1, 16, 4, 64), "paper": (1, 4, 16)}
    for size in sizes:
        write_rows(Path(f"{size}.zarr"), size)
    for precision, shared in (("fp32", False), ("fp32", True), ("bf16", False)):
        for size, members in sizes.items():
            config = make_config(Path(f"{size}.zarr"), size, precision, batch=SMALL_BATCH if rows.small else None)
            fitting = fitting_sizes(config, size, rows.device, members)
            for m in fitting if not shared else fitting[1:]:
                name = f"{size}, {precision}, {m} {'of one seed' if shared else 'of own seeds'}"
                expected = 4 + m * (1.5 if size == "paper" else 0.1)
                side = partial(over_alone, config, m, shared, rows.device, rows.small)
                rows.measure(name, side, expected=0 if rows.small else expected)
            if len(fitting) < len(members):
                rows.measure(f"{size}, {precision}, beyond {fitting[-1]}", lambda: {"note": "does not fit in memory"})


def over_alone(config: RunConfig, members: int, shared: bool, device: str, small: bool) -> dict[str, Any]:
    """Time a fleet and a run alone in turn."""
    where, cache = torch.device(device), config.cache
    sides: dict[str, Any] = {"alone": FleetSteps([config], cache, where)}
    if members > 1:
        runs = [config if shared else replace(config, seed=seed) for seed in range(members)]
        sides["fleet"] = FleetSteps(runs, cache, where)
    for _ in range(1 if small else 4):
        for side in sides.values():
            side()
    seconds = {name: median(found) for name, found in interleaved(sides, 2 if small else 25, device).items()}
    each = seconds.get("fleet", seconds["alone"]) / members
    found = {
        "members": members,
        "batch": sides["alone"].plan.batch_size,
        "alone_ms": 1e3 * seconds["alone"],
        "ms_a_run_and_step": 1e3 * each,
        "over_alone": each / seconds["alone"],
    }
    if members == 16:
        found |= {"goal": GOAL_AT_16, "goal_met": each / seconds["alone"] <= GOAL_AT_16}
    if device.startswith("cuda"):
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    return found
