"""Something-Else's whole size: python benchmarks/full_size.py [--device cuda] [--parts …] [--train N] [--epochs N].

A cache of 54,919 training and 57,876 test clips (16.6 GB of features, T′ = N = 4, 512 channels, 3 × 3 bins, 174
classes), of random rows, as no time depends on what they hold; accuracies mean nothing.

run      SFI with its prediction task, batch 72, 30 epochs, from a cold start to the run folder.
grid     Tables 1 and 2 and Figure 3 (the weight λ) of Yan et al. 2020 as one grid, three seeds, ensembles included.

Extraction of videos of Something-Something's size is `python benchmarks/extraction.py --parts end-to-end`.

Beside each stands its floor: the operations counted for its training steps and forward passes, at the rate of a large
matrix product, and the bytes that its batches read, at the rate of a large copy, whichever is longer; measured in the
same call. On a CPU the default is a small size: few clips, two epochs, one seed. Works in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fleet_steps import arrays_of, plan_of
from machine import copy_rate, facts, matmul_rate, save
from random_cache import PROTOCOL, write_cache
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.flops import PAPER_CLASSES, PAPER_SPEC, paper_batch, training_loss

from ifcar.pipelines.fit import fit
from ifcar.pipelines.grid.config import GridConfig, read_grid
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.grid.run import run_grid
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.heads import build_head
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.machine import MachineConfig

PARTS = ("run", "grid")
GRIDS = ("table1", "table2", "figure3")


def count_flops(config: RunConfig, *, num_train: int, num_test: int) -> float:
    """Return the operations of a whole run: its training steps, and one forward pass over both parts at the end."""
    plan = plan_of(config, num_train)
    clips = 8
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        head = build_head(config, PAPER_SPEC, PAPER_CLASSES).train()
        batch = paper_batch(clips)
        training_loss(head, batch, torch.zeros(clips, dtype=torch.long)).backward()
        step = counter.get_total_flops() / clips
        head.eval()(batch)
        forward = counter.get_total_flops() / clips - step
    return step * plan.epochs * num_train + forward * (num_train + num_test)


def count_bytes(config: RunConfig, *, num_train: int, num_test: int) -> float:
    """Return the bytes of features that the batches of a whole run hold."""
    plan = plan_of(config, num_train)
    row = PAPER_SPEC.row_bytes(name for name in arrays_of(config) if PAPER_SPEC.array(name).sharded)
    return float(row * (plan.epochs * num_train + num_train + num_test))


def floors(configs: Sequence[RunConfig], sizes: dict[str, int], rates: dict[str, float]) -> dict[str, float]:
    """Return operations, bytes and the seconds that these take at least."""
    flops = sum(count_flops(config, **sizes) for config in configs)
    num_bytes = sum(count_bytes(config, **sizes) for config in configs)
    return {
        "runs": len(configs),
        "petaflop": flops / 1e15,
        "gigabytes_read": num_bytes / 1e9,
        "floor_seconds": max(flops / rates["flop_per_sec"], num_bytes / rates["bytes_per_sec"]),
        "arithmetic_seconds": flops / rates["flop_per_sec"],
    }


def one_grid(schedule: ScheduleConfig, seeds: tuple[int, ...]) -> GridConfig:
    """Return the shipped grids of the paper's Tables 1 and 2 and Figure 3 as one, each system once."""
    files = [read_grid(Path(name)) for name in GRIDS]
    systems = {system.name: system for file in files for system in file.systems}
    ensembles = {fusion.name: fusion for file in files for fusion in file.ensembles}
    return replace(
        files[0],
        name="full-size",
        title="Tables 1 and 2 and Figure 3 at full size, random rows",
        dataset="random",
        protocols=(PROTOCOL,),
        seeds=seeds,
        schedule=schedule,
        systems=tuple(replace(system, published={}) for system in systems.values()),
        ensembles=tuple(replace(fusion, published={}) for fusion in ensembles.values()),
        published_on=None,
    )


def main() -> None:
    """Write the cache, train, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--train", type=int, help="training clips; default: 54,919, on a CPU 288")
    parser.add_argument("--test", type=int, help="test clips; default: 57,876, on a CPU 144")
    parser.add_argument("--epochs", type=int, help="default: the paper's 30 or 50, on a CPU 2")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    cpu = options.device == "cpu"
    sizes = {
        "num_train": options.train or (288 if cpu else 54_919),
        "num_test": options.test or (144 if cpu else 57_876),
    }
    schedule = ScheduleConfig(kind="paper", epochs=options.epochs or (2 if cpu else None), precision=options.precision)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    rates = {"flop_per_sec": matmul_rate(dtype, options.device), "bytes_per_sec": copy_rate(options.device)}
    found: dict[str, Any] = {**sizes, "epochs": schedule.epochs, "precision": options.precision, **rates}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        started = time.perf_counter()
        cache = Path("caches/random.zarr")
        write_cache(cache, PAPER_SPEC, **sizes, num_classes=PAPER_CLASSES)
        found["cache_seconds"] = time.perf_counter() - started
        if "run" in options.parts:
            config = make_run_config("sfi", cache, protocol=PROTOCOL, aux_weight=5.0, schedule=schedule)
            started = time.perf_counter()
            fit(config, Silent(), device=options.device)
            found["run"] = {"seconds": time.perf_counter() - started, **floors([config], sizes, rates)}
            shutil.rmtree("runs")
        if "grid" in options.parts:
            plan = plan_grid(one_grid(schedule, (0,) if cpu else (0, 1, 2)), cache)
            started = time.perf_counter()
            result = run_grid(plan, Silent(), MachineConfig(device=options.device))
            seconds = time.perf_counter() - started
            if result.failures:
                raise SystemExit(f"{len(result.failures)} runs failed; the first: {result.failures[0].reason}")
            found["grid"] = {"seconds": seconds, **floors([job.config for job in plan.jobs()], sizes, rates)}
        os.chdir("/")
    show(found)
    name = "full-size" if (sizes["num_train"], options.epochs) == (54_919, None) and not cpu else "full-size-small"
    print(save(f"{name}-{options.precision}", {**facts(options.device), **found}, options.device))


def show(found: dict[str, Any]) -> None:
    """Print a row for each part."""
    print(f"{found['num_train']:,} training and {found['num_test']:,} test clips")
    print("| part | runs | PFLOP | floor, s | measured, s | share of the product's rate |\n|---|---|---|---|---|---|")
    for part in PARTS:
        if part in found:
            row = found[part]
            share = row["arithmetic_seconds"] / row["seconds"]
            print(
                f"| {part} | {row['runs']} | {row['petaflop']:.3f} | {row['floor_seconds']:.1f} "
                f"| {row['seconds']:.1f} | {share:.2f} |"
            )


if __name__ == "__main__":
    main()
