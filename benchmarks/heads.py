"""Time and arithmetic of a training step: python benchmarks/heads.py [--device cuda] [--small] [--threads 1].

At the paper's size (batch 72, T′ = 4, N = 4, 512-channel 3×3 RoI features, 174 classes) every head does a whole step,
forward, backward and SGD with momentum, in fp32 and under bf16 autocast, in turn with a large matrix product of the
same type, medians over rounds. "ratio" is the step's time over the time that its counted operations take at that
product's rate; "products" is the part of the step that is spent in matrix products, by torch's profiler, the rest goes
into moving bytes. ORN is measured at its own paper's size: batch 32, T′ = 8, N = 10, 2048 channels, 28 × 28 masks, 81
object classes. STIN is measured on boxes alone too. Operations are those that torch counts while a step runs: rows
that are the same are computed once (`heads/distinct.py`). SFI and ORN stand beside their straightforward forms,
`tests/fixtures/plain_sfi.py` and `plain_orn.py`.

--small takes 12 clips and 2 rounds: it shows that the command works, not how fast the heads are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from head_steps import PRECISIONS, SYSTEMS, measure
from machine import facts, save

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.flops import PAPER_BATCH

from ifcar.devices import choose_device
from ifcar.heap import keep_freed_memory


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| head | preset | precision | GFLOP a step | ms a step | product GFLOP/s | ratio | products | plain form |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        plain = "" if r["plain_ms"] is None else f"{r['plain_ms']:,.1f} ms, {r['plain_ms'] / r['step_ms']:.2f}×"
        plain += "" if r["plain_gflop"] is None else f", {r['plain_gflop']:.1f} GFLOP"
        lines.append(
            f"| {r['head']} | {r['preset']} | {r['precision']} | {r['gflop']:.1f} | {r['step_ms']:,.1f} "
            f"| {r['matmul_gflops_per_sec']:,.0f} | {r['ratio']:.2f} | {r['product_share']:.2f} | {plain} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    parser.add_argument("--heads", choices=sorted({system.head for system in SYSTEMS}), nargs="+")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()  # as every command does
    num_clips, rounds = (12, 2) if options.small else (PAPER_BATCH, options.rounds)
    before = facts(choose_device(options.device))
    chosen = [s for s in SYSTEMS if options.heads is None or s.head in options.heads]
    rows = [measure(s, p, options.device, num_clips, rounds) for p in options.precision for s in chosen]
    print(table(rows))
    if not options.small:
        content = {"load_1min_before": before["load_1min"], "clips": num_clips, "rounds": rounds, "rows": rows}
        name = "-".join(["heads", *(options.heads or []), f"{torch.get_num_threads()}-threads"])
        print(save(name, content, options.device))


if __name__ == "__main__":
    main()
