"""Time and arithmetic of a training step: python benchmarks/heads.py [--device cuda] [--small] [--threads 1].

At the paper's size (batch 72, T′ = 4, N = 4, 512-channel 3×3 RoI features, 174 classes) every head does a whole step,
forward, backward and SGD with momentum, in fp32 and under bf16 autocast, in turn with a large matrix product of the
same type, medians over rounds. "ratio" is the step's time over the time that its counted operations take at that
product's rate; "products" is the part of the step that is spent in matrix products, by torch's profiler, the rest goes
into moving bytes. SFI stands beside its straightforward form, `tests/fixtures/plain_sfi.py`.

--small takes 12 clips and 2 rounds: it shows that the command works, not how fast the heads are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import facts, interleaved, median, save
from torch.profiler import ProfilerActivity, profile

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.flops import (
    PAPER_BATCH,
    PAPER_CLASSES,
    build_at_paper_size,
    count_training_flops,
    paper_batch,
    training_loss,
)
from fixtures.plain_sfi import PlainSFI

from ifcar.pipelines.heap import keep_freed_memory

SYSTEMS: list[tuple[str, str, dict[str, Any]]] = [
    ("sfi", "paper", {"prediction": True}),
    ("sfi", "released", {"prediction": True}),
    ("strg", "paper", {}),
    ("nl", "paper", {}),
    ("stin", "paper", {}),
    ("stin-nl", "paper", {}),
    ("base", "paper", {}),
]
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make_step(model: torch.nn.Module, device: str, num_clips: int, precision: str) -> Callable[[], None]:
    """Return a function that does one training step on the same clips."""
    model = model.to(device).train()
    batch = paper_batch(num_clips).to(torch.device(device))
    labels = torch.arange(num_clips, device=device) % PAPER_CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)  # as in `fit-head`

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            loss = training_loss(model, batch, labels)
        loss.backward()
        optimizer.step()

    return step


def make_matmul(device: str, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """Return a large square product and its operations."""
    size = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2 * size**3


def product_share(step: Callable[[], None], device: str) -> float:
    """Return the share of a step's time that its matrix products take."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.startswith("cuda") else [])]
    with profile(activities=kinds) as recorded:
        for _ in range(3):
            step()
    events = recorded.key_averages()
    own = "self_device_time_total" if device.startswith("cuda") else "self_cpu_time_total"
    total = sum(getattr(event, own) for event in events)
    return float(sum(getattr(event, own) for event in events if event.key in PRODUCTS) / total)


def measure(
    system: tuple[str, str, dict[str, Any]], precision: str, device: str, num_clips: int, rounds: int
) -> dict[str, Any]:
    """Return one row of the table."""
    name, preset, options = system
    torch.manual_seed(0)
    head = build_at_paper_size(name, preset, **options)
    matmul, matmul_flops = make_matmul(device, PRECISIONS[precision])
    step = make_step(head, device, num_clips, precision)
    sides: dict[str, Callable[[], object]] = {"matmul": matmul, "step": step}
    if name == "sfi":
        sides["plain"] = make_step(PlainSFI(head), device, num_clips, precision)
    seconds = {side: median(values) for side, values in interleaved(sides, rounds, device).items()}
    flops = count_training_flops(name, preset, num_clips=num_clips, **options)
    rate = matmul_flops / seconds["matmul"]
    return {
        "head": name,
        "preset": preset,
        "precision": precision,
        "parameters": sum(p.numel() for p in head.parameters()),
        "gflop": flops / 1e9,
        "step_ms": 1e3 * seconds["step"],
        "matmul_gflops_per_sec": rate / 1e9,
        "ratio": seconds["step"] * rate / flops,
        "product_share": product_share(step, device),
        "plain_ms": 1e3 * seconds["plain"] if "plain" in seconds else None,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| head | preset | precision | GFLOP a step | ms a step | product GFLOP/s | ratio | products | plain form |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        plain = "" if r["plain_ms"] is None else f"{r['plain_ms']:,.1f} ms, {r['plain_ms'] / r['step_ms']:.2f}×"
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
    parser.add_argument("--heads", choices=sorted({name for name, _, _ in SYSTEMS}), nargs="+")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()  # as every command does
    num_clips, rounds = (12, 2) if options.small else (PAPER_BATCH, options.rounds)
    before = facts(options.device)
    chosen = [s for s in SYSTEMS if options.heads is None or s[0] in options.heads]
    rows = [measure(s, p, options.device, num_clips, rounds) for p in options.precision for s in chosen]
    print(table(rows))
    if not options.small:
        content = {"load_1min_before": before["load_1min"], "clips": num_clips, "rounds": rounds, "rows": rows}
        print(save(f"heads-{torch.get_num_threads()}-threads", content, options.device))


if __name__ == "__main__":
    main()
