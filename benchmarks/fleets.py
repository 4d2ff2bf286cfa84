"""Time per run and step of fleets: python benchmarks/fleets.py [--paper] [--small] [--device cuda] [--rounds 5].

SFI with its prediction task on random rows of toybox's size (preset small, 2048 channels, 1 bin, T′ = N = 4, batch
32) or, with --paper, of the paper's (512 channels, 3 × 3 bins, batch 72). Fleets of 1, 4, 16 and 64, as far as memory
allows, and as a sweep of one seed (batches shared) and of many (own batches); one thread each, as in the grid's
processes. A run alone is timed with one thread and with all of them; at last all cores train, a process each, single
runs and then 16 in fleets. Turns are interleaved, medians are kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from fleet_steps import FleetSteps
from machine import median, save, synchronise
from random_cache import PROTOCOL, write_cache

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.flops import PAPER_CLASSES, PAPER_SPEC

from ifcar.cache.arrays import CacheSpec
from ifcar.devices import choose_device
from ifcar.pipelines.fleets.fleet import FLEET_SHARE, member_bytes
from ifcar.pipelines.fleets.pool import prepare_worker
from ifcar.pipelines.fleets.workers import free_on
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

NUM_CLIPS = 288  # whole batches of 32 and of 72
TOYBOX = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4, channels=2048, pooled_size=1)
SIZES = {"toybox": (TOYBOX, 18, "small", "stretched"), "paper": (PAPER_SPEC, PAPER_CLASSES, "paper", "paper")}


def write_rows(cache: Path, size: str) -> None:
    """Write a cache of one of the sizes."""
    spec, num_classes, *_ = SIZES[size]
    write_cache(cache, spec, num_train=NUM_CLIPS, num_test=0, num_classes=num_classes)


def make_config(
    cache: Path, size: str, precision: str = "fp32", *, layout: bool = False, batch: int | None = None
) -> RunConfig:
    """Return the run that fleets of one of the sizes consist of: SFI with its prediction task."""
    *_, preset, kind = SIZES[size]
    return make_run_config(
        "sfi",
        cache,
        protocol=PROTOCOL,
        preset=preset,
        streams="layout" if layout else None,
        aux_weight=5.0,
        schedule=ScheduleConfig(kind=kind, precision=precision, batch_size=batch),  # type: ignore[arg-type]
    )


def fitting_sizes(config: RunConfig, size: str, device: str, sizes: Sequence[int]) -> list[int]:
    """Return the fleets that the planner would let into the free memory, a run alone always."""
    spec, num_classes, *_ = SIZES[size]
    each = member_bytes(config, spec, num_classes, NUM_CLIPS)
    return [m for m in sizes if m == 1 or m * each < FLEET_SHARE * free_on(device)]


def train_beside_others(
    configs: list[RunConfig], cache: Path, start: Barrier, count: int, seconds: Queue[float]
) -> None:
    """Train a fleet in one of several processes, and report how long each of `count` steps took in the median."""
    torch.set_num_threads(1)
    prepare_worker()
    step = FleetSteps(configs, cache, torch.device("cpu"))
    step()
    start.wait()
    times = []
    for _ in range(count):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    seconds.put(median(times))


def on_all_cores(config: RunConfig, cache: Path, members: int, count: int) -> float:
    """Return the seconds a run and step when `members` runs are spread over one process a core."""
    cores = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    start, seconds = context.Barrier(cores), context.Queue()
    parts = np.array_split(np.arange(members), cores)
    processes = [
        context.Process(
            target=train_beside_others,
            args=([replace(config, seed=int(seed)) for seed in part], cache, start, count, seconds),
        )
        for part in parts
    ]
    for process in processes:
        process.start()
    slowest = max(seconds.get() for _ in processes)
    for process in processes:
        process.join()
    return slowest / members


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--small", action="store_true", help="fleets of 1 and 4 only")
    parser.add_argument("--layout", action="store_true", help="boxes and categories only")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device, size = torch.device(choose_device(options.device)), "paper" if options.paper else "toybox"
    prepare_worker()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "random.zarr"
        write_rows(cache, size)
        config = make_config(cache, size, options.precision, layout=options.layout)
        each = member_bytes(config, *SIZES[size][:2], NUM_CLIPS)
        sizes = fitting_sizes(config, size, options.device, (1, 4) if options.small else (1, 4, 16, 64))
        steps: dict[str, tuple[int, int, Callable[[], None]]] = {}
        alone = FleetSteps([config], cache, device)
        if device.type == "cpu":
            steps["alone, all threads"] = (1, os.cpu_count() or 1, alone)
        steps["alone"] = (1, 1, alone)
        for m in sizes[1:]:
            steps[f"{m}, one seed"] = (m, 1, FleetSteps([config] * m, cache, device))
            steps[f"{m}, own seeds"] = (m, 1, FleetSteps([replace(config, seed=k) for k in range(m)], cache, device))
        times: dict[str, list[float]] = {name: [] for name in steps}
        load = os.getloadavg()[0]
        for turn in range(options.rounds + 1):
            for name, (m, threads, step) in steps.items():
                torch.set_num_threads(threads)
                count = max(1, 8 // m)
                started = time.perf_counter()
                for _ in range(count):
                    step()
                synchronise(options.device)
                if turn:  # the first is a warm-up
                    times[name].append((time.perf_counter() - started) / count / m)
        result = {name: median(values) for name, values in times.items()}
        if device.type == "cpu" and not options.small:
            cores = os.cpu_count() or 1
            result[f"alone, {cores} processes"] = on_all_cores(config, cache, cores, 8 * options.rounds)
            result[f"16, own seeds, {cores} processes"] = on_all_cores(config, cache, 16, options.rounds)
    print("| members | ms a run and step | of alone |")
    print("|---|---|---|")
    for name, value in result.items():
        print(f"| {name} | {1e3 * value:.2f} | {value / result['alone']:.2f} |")
    parts = [size, "layout" if options.layout else "", options.precision]
    name = "-".join(["fleets", *(part for part in parts if part)])
    content = {
        "load_before": load,
        "bytes_a_member": each,
        "rounds": options.rounds,
        "seconds_a_run_and_step": result,
        "of_alone": {key: value / result["alone"] for key, value in result.items()},
    }
    print(f"load before {load:.1f}; {save(name, content, options.device)}")


if __name__ == "__main__":
    main()
