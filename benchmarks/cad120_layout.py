"""Layout heads on CAD-120++: python benchmarks/cad120_layout.py FOLDER HEAD [SEEDS].

Four leave-one-subject-out protocols. Settings were chosen by the mean held-out top-1 (one whole subject of each
training split) over protocols and seeds; test top-1 stands beside it. FOLDER holds annotations.json, videoid2size.json
and splits/. Works in the current folder.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from ifcar.cache.open import open_cache
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

CACHE = Path("caches/cad120.zarr")
SETTINGS = {
    "base": (600, {"joint.motion": True}),
    "sfi": (400, {"joint.motion": True, "edge_relu": True, "lstm_layers": 1}),
}


def run(job: tuple[str, str, int]) -> tuple[float, float, float]:
    """Train one head and return its held-out, test and training top-1."""
    import torch

    torch.set_num_threads(1)
    head, protocol, seed = job
    min_steps, settings = SETTINGS[head]
    schedule = ScheduleConfig(kind="stretched", min_steps=min_steps, weight_decay=1e-2, label_smoothing=0.1)
    config = make_run_config(
        head,
        CACHE,
        protocol=protocol,
        preset="small",
        streams="layout",
        settings=settings,
        schedule=schedule,
        seed=seed,
    )
    top1 = {m.split: m.top1 for m in fit(config, Silent()).run.metrics}
    return top1["held_out"], top1["test"], top1["train"]


def main() -> None:
    """Extract once, train every protocol and seed, print."""
    root, head, num_seeds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3
    options = ExtractConfig(
        dataset="something-else",
        data_root=root,
        out=CACHE,
        backbone="none",
        frames=8,
        instances=11,
        augmented_views=23,
        flip=True,
    )
    extract(options, Silent())
    protocols = open_cache(CACHE).protocol_names()
    jobs = [(head, protocol, seed) for seed in range(num_seeds) for protocol in protocols]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        results = np.array(list(pool.map(run, jobs))).reshape(num_seeds, len(protocols), 3)
    for number, protocol in enumerate(protocols):
        held_out, test, train = 100 * results[:, number].mean(0)
        print(f"{protocol}: held-out {held_out:.1f}, test {test:.1f}, train {train:.1f}")
    for seed, (held_out, test, train) in enumerate(100 * results.mean(1)):
        print(f"seed {seed}: held-out {held_out:.1f}, test {test:.1f}, train {train:.1f}")
    held_out, test, train = 100 * results.mean((0, 1))
    print(f"{head}, mean of {len(jobs)} runs: held-out {held_out:.1f}, test {test:.1f}, train {train:.1f}")


if __name__ == "__main__":
    main()
