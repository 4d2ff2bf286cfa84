"""Part full_size of `benchmarks/gpu.py`: Something-Else's training part, and the grid of the papers' tables on it.

What is extrapolated: a run's training from the mean of its steps so far, times the steps of its schedule; evaluation,
loading and writing are not in it. Of a grid's fleets that were not begun, the time of their operations at the rate that
the measured ones reached.
"""

from __future__ import annotations

import gc
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fleet_steps import FleetSteps, arrays_of, open_rows, plan_of
from full_size import PAPER_CLASSES, PAPER_SPEC, count_flops, one_grid
from gpu_rows import Rows
from machine import median, peaks, synchronise
from random_cache import PROTOCOL, write_cache
from reading import drop_pages

from ifcar.pipelines.feed.batches import BatchReader
from ifcar.pipelines.feed.memory import Memory
from ifcar.pipelines.fleets.fleet import Fleet, plan_fleets
from ifcar.pipelines.fleets.pool import prepare_worker
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

NUM_TRAIN = 54_919
FEW = 72  # test clips: a cache must have some, and none is looked at
CACHE = Path("caches/random.zarr")
WRITE_SHARE = 0.3  # of the box, for writing rows; fewer rows where the disk is slower
TRIAL_ROWS = 2048
SMALL_BATCH = 8


def run(rows: Rows) -> None:
    """Write the rows, train on them from each place, then time the fleets of the grid."""
    prepare_worker()
    known = rows.measure("peaks", partial(peaks, rows.device, small=rows.small))
    written = rows.measure("rows", partial(write_rows, rows))
    if not written:
        return
    cuda = rows.device.startswith("cuda")
    places: list[Memory] = ["gpu", "ram", "stream"] if cuda else ["ram", "stream"]  # type: ignore[list-item]
    seconds = 0.0 if rows.small else 5.0
    for place in places:
        opened: list[BatchReader] = []
        rows.measure(f"{place}, loading", partial(load, place, rows.device, opened), expected=seconds)
        for precision in ("fp32", "bf16") if opened else ():
            config = sfi(precision, small=rows.small)
            side = partial(part_of_epoch, config, opened[0], rows.device, seconds, known.get(precision))
            rows.measure(f"{place}, sfi + prediction, {precision}", side, expected=2 * seconds)
        opened.clear()
        free_gpu()
    time_grid(rows, known.get("fp32"))


def sfi(precision: str, *, small: bool) -> RunConfig:
    """Return a run of SFI with its prediction task."""
    return make_run_config(
        "sfi", CACHE, protocol=PROTOCOL, preset="small" if small else "paper", aux_weight=5.0,
        schedule=schedule(precision, small=small),
    )  # fmt: skip


def schedule(precision: str, *, small: bool) -> ScheduleConfig:
    """Return the paper's schedule, with few clips a step where that it runs is all that is asked."""
    return ScheduleConfig(kind="paper", precision=precision, batch_size=SMALL_BATCH if small else None)  # type: ignore[arg-type]


def write_rows(rows: Rows) -> dict[str, Any]:
    """Write as many of the training rows as the box and the disk have room for."""
    row_bytes = PAPER_SPEC.row_bytes(PAPER_SPEC.names())
    count = 2 * SMALL_BATCH if rows.small else NUM_TRAIN
    if not rows.small:
        started = time.monotonic()
        write_cache(Path("trial.zarr"), PAPER_SPEC, num_train=TRIAL_ROWS, num_test=FEW, num_classes=PAPER_CLASSES)
        each = (time.monotonic() - started) / TRIAL_ROWS
        shutil.rmtree("trial.zarr")
        room = 0.8 * shutil.disk_usage(".").free / row_bytes
        count = int(min(count, room, WRITE_SHARE * rows.left() / each))
    started = time.monotonic()
    write_cache(CACHE, PAPER_SPEC, num_train=count, num_test=FEW, num_classes=PAPER_CLASSES)
    seconds = time.monotonic() - started
    return {"rows": count, "of": NUM_TRAIN, "gb": count * row_bytes / 1e9, "seconds": seconds,
            "gb_per_sec": count * row_bytes / seconds / 1e9}  # fmt: skip


def load(place: Memory, device: str, opened: list[BatchReader]) -> dict[str, Any]:
    """Open the rows of SFI where `place` says, and append them to `opened`."""
    if place == "stream":
        drop_pages(CACHE)
    started = time.monotonic()
    batches = open_rows(arrays_of(sfi("fp32", small=False)), CACHE, torch.device(device), place)
    synchronise(device)
    seconds = time.monotonic() - started
    opened.append(batches)
    return {"seconds": seconds, "gb": batches.num_bytes / 1e9, "gb_per_sec": batches.num_bytes / seconds / 1e9}


def part_of_epoch(
    config: RunConfig, batches: BatchReader, device: str, seconds: float, peak: float | None
) -> dict[str, Any]:
    """Train for some seconds from where the rows are."""
    steps = FleetSteps([config], CACHE, torch.device(device), batches)
    if batches.place == "stream":
        drop_pages(CACHE)
    found = time_steps(steps, device, seconds)
    total = plan_of(config, NUM_TRAIN).num_steps
    flops = count_flops(config, num_train=NUM_TRAIN, num_test=0) / total
    return {
        **found,
        "rows_per_sec": steps.plan.batch_size / found["mean_step_ms"] * 1e3,
        "share_of_peak": flops / (found["mean_step_ms"] / 1e3) / peak if peak else None,
        "extrapolated_steps": total,
        "extrapolated_minutes_of_30_epochs": total * found["mean_step_ms"] / 60e3,
    }


def time_steps(steps: FleetSteps, device: str, seconds: float) -> dict[str, Any]:
    """Take steps for some seconds after three, and at least three, and return what one takes; for none, after one."""
    fewest = 3 if seconds else 1
    for _ in range(fewest):
        steps()
    synchronise(device)
    begun, each = time.perf_counter(), []
    while len(each) < fewest or time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        steps()
        each.append(time.perf_counter() - started)
    synchronise(device)
    whole = time.perf_counter() - begun
    return {"steps": len(each), "mean_step_ms": 1e3 * whole / len(each), "median_step_ms": 1e3 * median(each)}


def time_grid(rows: Rows, peak: float | None) -> None:
    """Time some steps of each of the grid's fleets, the longest first, and add them up."""
    grid = one_grid(schedule("fp32", small=rows.small), (0,) if rows.small else (0, 1, 2))
    if rows.small:
        grid = replace(grid, systems=grid.systems[:3], ensembles=(), baseline=None)
    plan = plan_grid(grid, CACHE)
    fleets, lines = plan_fleets(plan.jobs(), processes=1, device=rows.device)
    work = {
        number: sum(count_flops(job.config, num_train=NUM_TRAIN, num_test=0) for job in fleet.jobs)
        for number, fleet in enumerate(fleets)
    }
    order = sorted(work, key=lambda number: -work[number])
    readers: dict[tuple[str, ...], BatchReader] = {}
    measured: dict[int, float] = {}
    for number in order[-2:] if rows.small else order:
        fleet = fleets[number]
        config = fleet.jobs[0].config
        name = f"grid: {len(fleet.jobs)} × {config.head}, {', '.join(arrays_of(config)) or 'boxes and categories'}"
        expected = 3 + 1.2 * len(fleet.jobs)
        side = partial(time_fleet, fleet, readers, rows, work[number], peak)
        found = rows.measure(name, side, expected=0 if rows.small else expected)
        if found:
            measured[number] = found["extrapolated_minutes"]
        free_gpu()
    if measured:
        rows.measure("grid in all", partial(add_up, measured, work, sum(len(fleet.jobs) for fleet in fleets), lines))


def time_fleet(
    fleet: Fleet, readers: dict[tuple[str, ...], BatchReader], rows: Rows, flops: float, peak: float | None
) -> dict[str, Any]:
    """Time some steps of a fleet, of the rows kept where they fit."""
    configs = [job.config for job in fleet.jobs]
    arrays = arrays_of(configs[0])
    if arrays not in readers:
        readers.clear()  # what one set of arrays fills, the next one needs
        free_gpu()
        readers[arrays] = open_rows(arrays, CACHE, torch.device(rows.device), "auto")
    steps = FleetSteps(configs, CACHE, torch.device(rows.device), readers[arrays])
    found = time_steps(steps, rows.device, 0.0 if rows.small else 1.0)
    total = plan_of(configs[0], NUM_TRAIN).num_steps
    minutes = total * found["mean_step_ms"] / 60e3
    return {
        "runs": len(configs), "place": readers[arrays].place, **found, "extrapolated_steps": total,
        "extrapolated_minutes": minutes, "petaflop": flops / 1e15,
        "share_of_peak": flops / (60 * minutes) / peak if peak else None,
    }  # fmt: skip


def add_up(measured: dict[int, float], work: dict[int, float], num_runs: int, lines: list[str]) -> dict[str, Any]:
    """Return the minutes of the whole grid: of the fleets that were timed, and of the others by their operations."""
    timed = sum(measured.values())
    done = sum(work[number] for number in measured)
    rest = timed * (sum(work.values()) - done) / done
    return {
        "runs": num_runs, "fleets": len(work), "fleets_timed": len(measured),
        "share_of_operations_timed": done / sum(work.values()), "extrapolated_minutes_timed": timed,
        "extrapolated_minutes_by_operations": rest, "extrapolated_minutes": timed + rest, "plan": lines,
    }  # fmt: skip


def free_gpu() -> None:
    """Give memory back that nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
