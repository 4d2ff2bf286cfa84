"""What Ray costs: python benchmarks/ray_scaling.py [--rounds 2] [--small]. Takes about four minutes; needs ifcar[ray].

`extract` of i3d_r50 from 32-pixel crops, blocks of a few seconds, on one core (a cluster of one node; the driver and
all of Ray are pinned to that core) and on two (two nodes of a core each), against the local engine on the same cores
with as many threads. Every extraction has a process of its own; the sides of a number of cores run in turn. The rate
counts from the first rows on, as it does at length; `first block` from the start of `extract`, with the cluster up. The
driver's CPU time has Ray's threads in its process in it. Works in a temporary folder.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from clips import write_folders
from machine import facts, median, save

from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.weights import load_weights
from ifcar.pipelines.engines.cluster import RayConfig
from ifcar.pipelines.engines.contract import ExtractEngine
from ifcar.pipelines.engines.local import LocalEngine
from ifcar.pipelines.engines.ray_extract import RayEngine
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

CLIPS, FRAMES, ROWS = 128, 8, 256
ENGINES = ("local", "ray")


class Clock(Silent):
    """Notes when rows are done, and the CPU seconds of this process then."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float, int]] = []

    def advance(self, count: int = 1, note: str = "") -> None:
        """Note the time when there are rows."""
        if count:
            self.times.append((time.perf_counter(), time.process_time(), count))


@contextmanager
def engine_on(name: str, cores: int) -> Iterator[ExtractEngine]:
    """Yield an engine that has so many cores: on Ray a node each."""
    if name == "local":
        yield LocalEngine()
        return
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(cores - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield RayEngine(RayConfig(address=cluster.address))
    finally:
        cluster.shutdown()


def one_extraction(connection: Connection, name: str, cores: int, num_blocks: int) -> None:
    """Extract in this process, or with this process as the driver, and send what it took."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(cores)
    clock, out = Clock(), Path(f"{name}-{cores}-{time.time_ns()}.zarr").absolute()
    config = ExtractConfig(
        dataset="something-else", data_root=Path("clips"), out=out, weights=str(Path("weights.pt").absolute()),
        crop=32, frames=FRAMES, views=num_blocks * ROWS // CLIPS, workers=cores if name == "local" else None,
        device="cpu",
    )  # fmt: skip
    with engine_on(name, cores) as engine:
        began = time.perf_counter()
        result = extract(config, clock, engine)
        ended, used = time.perf_counter(), time.process_time()
        commits = [path.stat().st_mtime for path in (out / "commits").glob("[0-9]*.json")]
    first_time, first_used, first_count = clock.times[0]
    begun_at = time.time() - (time.perf_counter() - began)
    assert result.num_computed == num_blocks * ROWS
    connection.send(
        {
            "rows_per_sec": (result.num_computed - first_count) / (ended - first_time),
            "first_block_sec": min(commits) - begun_at,
            "seconds": ended - began,
            "driver_cpu_ms_per_block": 1000 * (used - first_used) / num_blocks,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    )


def measured(name: str, cores: int, num_blocks: int) -> dict[str, float]:
    """Run an extraction in a process of its own."""
    here, there = multiprocessing.Pipe()
    arguments = (there, name, cores, num_blocks)
    child = multiprocessing.get_context("spawn").Process(target=one_extraction, args=arguments)
    child.start()
    there.close()
    found: dict[str, float] = here.recv()
    child.join()
    return found


def compared(cores: int, num_blocks: int, rounds: int) -> dict[str, Any]:
    """Run both engines in turn on so many cores."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name in ENGINES:
            runs[name].append(measured(name, cores, num_blocks))
    medians = {name: {key: median([run[key] for run in runs[name]]) for key in runs[name][0]} for name in ENGINES}
    rate = {name: medians[name]["rows_per_sec"] for name in ENGINES}
    return {"cores": cores, "blocks": num_blocks, "overhead": rate["local"] / rate["ray"] - 1, **medians, "runs": runs}


def main() -> None:
    """Run one and two cores, print a table and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="two blocks, one round: does it run?")
    arguments = parser.parse_args()
    here, rounds = facts(), 1 if arguments.small else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_folders(Path("clips"), CLIPS)
        net = build_backbone(resolve_backbone("i3d_r50", num_frames=FRAMES, spatial_stride=16))
        load_weights(net, "random:0")
        torch.save(net.state_dict(), "weights.pt")
        rows = [compared(cores, 2 if arguments.small else 3 * cores, rounds) for cores in (1, 2)]
        os.chdir("/")
    show(rows)
    print(save(f"ray-scaling{'-small' if arguments.small else ''}", {**here, "rounds": rounds, "rows": rows}))


def show(rows: list[dict[str, Any]]) -> None:
    """Print a line for every engine on every number of cores."""
    print("| cores | engine | rows/s | overhead | first block, s | driver's CPU, ms a block |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        for name in ENGINES:
            found, is_ray = row[name], name == "ray"
            over = f"{row['overhead']:+.1%}" if is_ray else ""
            used = f"{found['driver_cpu_ms_per_block']:.0f}" if is_ray else "computes itself"
            numbers = f"{found['rows_per_sec']:.1f} | {over} | {found['first_block_sec']:.1f}"
            print(f"| {row['cores']} | {name} | {numbers} | {used} |")


if __name__ == "__main__":
    main()
