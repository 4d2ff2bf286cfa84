"""How the presets `tuned` were chosen: python benchmarks/tuned_choice.py HEAD CACHE PROTOCOL [--streams layout].

Trains preset `small` of a head and what might be better, 300 steps, two seeds each as one fleet, and prints top-1 or
mAP in percent on the held-out part of the training split, whose clips no run trains on: mean, deviation, and beside it
the training clips. Runs are kept in --runs and not made again. `--test` prints the test clips of the same runs instead:
for the arms of --arms alone, after the choice is made. Every run scores them; nothing else here looks at them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.finished import Run, open_run
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.jobs import FailedRun, Job
from ifcar.pipelines.training.together import fit_together

Arm = dict[str, Any]
STEPS = 300
SMOOTH: Arm = {"label_smoothing": 0.1}
MOTION: Arm = {"joint.motion": True}
WIDE: Arm = {**MOTION, "joint.layout_dim": 128, "joint.appearance_dim": 128, "hidden_dim": 128}
ONE_LAYER: Arm = {**MOTION, "edge_relu": True, "lstm_layers": 1}
LAYOUT_MOTION: Arm = {"layout.motion": True}
NO_DROPOUT: Arm = {**LAYOUT_MOTION, "layout.dropout": 0.0}
SCALES: Arm = {"layout.embedding_scale": 0.1, "layout.attention_scale": 3.0}
ARMS: dict[str, dict[str, Arm]] = {
    "base": {
        "small": {},
        "motion": {"settings": MOTION},
        "motion, label smoothing 0.1": {"settings": MOTION, "schedule": SMOOTH},
        "motion, width 128": {"settings": WIDE},
        "motion, no augmented views": {"settings": MOTION, "augmented_views": 0},
    },
    "stin": {
        "small": {},
        "motion": {"settings": MOTION},
        "motion, label smoothing 0.1": {"settings": MOTION, "schedule": SMOOTH},
        "motion, width 128": {"settings": WIDE},
    },
    "sfi": {
        "small": {},
        "motion": {"settings": MOTION},
        "motion, λ = 1": {"settings": MOTION, "aux_weight": 1.0},
        "motion, edge ReLU, one LSTM layer": {"settings": ONE_LAYER},
        "motion, edge ReLU, one LSTM layer, label smoothing 0.1": {"settings": ONE_LAYER, "schedule": SMOOTH},
        "motion, edge ReLU, one LSTM layer, λ = 1": {"settings": ONE_LAYER, "aux_weight": 1.0},
    },
    "stlt": {
        "small": {},
        "motion": {"settings": LAYOUT_MOTION},
        "motion, no dropout": {"settings": NO_DROPOUT},
        "motion, scales, no dropout": {"settings": {**NO_DROPOUT, **SCALES}},
    },
}


def trained(jobs: list[Job]) -> list[Run]:
    """Return the runs of one arm, after training those that are not there yet as a fleet."""
    if all((job.path / "metrics.json").exists() for job in jobs):
        return [open_run(job.path) for job in jobs]
    results = fit_together(jobs, jobs[0].path.parent, Silent())
    failed = [result.reason for result in results if isinstance(result, FailedRun)]
    if failed:
        raise SystemExit("\n".join(failed))
    return [open_run(job.path) for job in jobs]


def jobs_of(options: argparse.Namespace, name: str) -> list[Job]:
    """Return an arm's runs, a seed each."""
    arm = dict(ARMS[options.head][name])
    schedule = ScheduleConfig(kind="stretched", min_steps=options.steps, refit=False, **arm.pop("schedule", {}))
    folder = options.runs / f"{options.cache.stem}-{options.protocol}-{options.streams or 'both'}-{options.steps}"
    jobs = []
    for seed in range(options.seeds):
        config = make_run_config(
            options.head,
            options.cache,
            protocol=options.protocol,
            preset="small",
            streams=options.streams,
            schedule=schedule,
            seed=seed,
            **arm,
        )
        path = folder / f"{options.head}-{name.replace(' ', '-').replace(',', '')}" / f"seed{seed}"
        jobs.append(Job(config=config, path=path))
    return jobs


def in_percent(runs: list[Run], split: str) -> str:
    """Return mean and deviation over the runs of the measure that decides, and how many clips there are."""
    found = [metrics for run in runs for metrics in run.metrics if metrics.split == split]
    shares = 100 * np.array([metrics.primary for metrics in found], dtype=np.float64)
    return f"{shares.mean():.1f} ± {shares.std(ddof=min(1, len(shares) - 1)):.1f} (n {found[0].n})"


def main() -> None:
    """Print a line an arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=list(ARMS))
    parser.add_argument("cache", type=Path)
    parser.add_argument("protocol")
    parser.add_argument("--streams")
    parser.add_argument("--arms", help="parted by semicolons; default: all of the head")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--runs", type=Path, default=Path("runs/tuned-choice"))
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    if options.test and options.arms is None:
        parser.error("--test needs --arms: the test clips of what was chosen, not of every candidate")
    torch.set_num_threads(1)
    for name in ARMS[options.head] if options.arms is None else options.arms.split(";"):
        runs = trained(jobs_of(options, name))
        shown = ["test"] if options.test else ["held_out", "train"]
        figures = ", ".join(f"{split} {in_percent(runs, split)}" for split in shown)
        print(f"{options.cache.stem} {options.protocol}, {options.head}, {name}: {figures}", flush=True)


if __name__ == "__main__":
    main()
