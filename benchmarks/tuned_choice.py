"""How the presets `tuned` were chosen: python benchmarks/tuned_choice.py HEAD CACHE PROTOCOL [layout].

Trains preset `small` of a head and what might be better, 300 steps, seed 0, and prints top-1 in percent on the held-out
part of the training split, whose clips no run trains on. Test clips are scored by every run and never looked at here.
The last argument gives heads of two streams the boxes alone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

Arm = dict[str, Any]
STEPS = 300
MOTION: Arm = {"joint.motion": True}
ONE_LAYER: Arm = {**MOTION, "edge_relu": True, "lstm_layers": 1}
WIDE: Arm = {**MOTION, "joint.layout_dim": 128, "joint.appearance_dim": 128, "hidden_dim": 128}
SMOOTH: Arm = {"label_smoothing": 0.1}
ARMS: dict[str, dict[str, Arm]] = {
    "base": {
        "small": {},
        "motion": {"settings": MOTION},
        "motion, label smoothing": {"settings": MOTION, "schedule": SMOOTH},
        "motion, width 128": {"settings": WIDE},
        "motion, no augmented views": {"settings": MOTION, "augmented_views": 0},
    },
    "stin": {
        "small": {},
        "motion": {"settings": MOTION},
        "motion, label smoothing": {"settings": MOTION, "schedule": SMOOTH},
        "motion, width 128": {"settings": WIDE},
    },
    "sfi": {
        "small": {},
        "motion": {"settings": MOTION},
        "motion, edge ReLU, one LSTM layer, label smoothing": {"settings": ONE_LAYER, "schedule": SMOOTH},
        "motion, λ = 1": {"settings": MOTION, "aux_weight": 1.0},
    },
    "stlt": {
        "small": {},
        "motion": {"settings": {"layout.motion": True}},
        "motion, label smoothing": {"settings": {"layout.motion": True}, "schedule": SMOOTH},
    },
}


def held_out_top1(head: str, cache: Path, protocol: str, streams: str | None, arm: Arm) -> tuple[float, int]:
    """Return the share of held-out clips that are right at the stopping point, and how many there are."""
    options = dict(arm)
    schedule = ScheduleConfig(kind="stretched", min_steps=STEPS, refit=False, **options.pop("schedule", {}))
    config = make_run_config(
        head, cache, protocol=protocol, preset="small", streams=streams, schedule=schedule, **options
    )
    with tempfile.TemporaryDirectory() as folder:
        metrics = fit(config, Silent(), out=Path(folder) / "run").run.metrics
    (held_out,) = (m for m in metrics if m.split == "held_out")
    assert held_out.top1 is not None
    return held_out.top1, held_out.n


def main(head: str, cache: Path, protocol: str, streams: str | None) -> None:
    """Print a line an arm."""
    torch.set_num_threads(1)
    for name, arm in ARMS[head].items():
        share, n = held_out_top1(head, cache, protocol, streams if head != "stlt" else None, arm)
        print(f"{head}, {name}: {100 * share:.1f} of {n} held-out clips of {cache.stem} {protocol}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)
