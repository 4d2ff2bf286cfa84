"""Presets `released` beside the released code of Yan et al. 2020: python benchmarks/released_heads.py [--threads 1].

Each head at the paper's size (batch 72, T′ = N = 4, 512 channels, 3 × 3 bins, 174 classes; slots filled to three
quarters), in fp32 and under bf16 autocast, in turn: a whole training step as `fit-head` takes it, and one of the same
function layer by layer as that code computes it (`tests/fixtures/released_heads.py`), with torch's SGD as it comes.
Both clip the gradient, and both begin with float16 features. Ratios are medians of those of each turn. Operations are
those that torch counts while a step runs; it does not see the other form's `nn.LSTM`.

With one thread the clock is the thread's own CPU time, which moves little with what else the machine does; with several
it is the wall's, which needs idle cores. --small takes 8 clips: it shows that the command works.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from head_steps import PRECISIONS, count
from machine import facts, median, save

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.flops import (
    PAPER_BATCH,
    PAPER_CLASSES,
    PAPER_SPEC,
    build_at_paper_size,
    paper_batch,
    training_loss,
)
from fixtures.released_heads import RELEASED

from ifcar.heads.contract import Head
from ifcar.heap import keep_freed_memory
from ifcar.pipelines.stacks.noise import draw_noise
from ifcar.pipelines.stacks.stack import stack_heads
from ifcar.pipelines.training.trainer import clip_gradients

CPU = torch.device("cpu")
LARGEST_NORM = 5.0
SGD: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}


def our_step(head: Head, num_clips: int, precision: str) -> Callable[[], None]:
    """Return a training step of a head, as `ifcar.pipelines.training.loop.train_step` takes it."""
    stack = stack_heads([head], CPU)
    stack.set_training(True)
    row = stack.weights[0]
    optimizer = torch.optim.SGD([row], fused=True, **SGD)
    batch, labels = paper_batch(num_clips), torch.arange(num_clips) % PAPER_CLASSES

    def step() -> None:
        noise = draw_noise(stack.template, [0], "fit", 0, num_clips, CPU)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = stack.score(batch, per_head=False, noise=noise)
        loss = F.cross_entropy(out.logits[0], labels) + sum(loss.sum() for loss in out.losses.values())
        stack.fill_gradients(loss.unsqueeze(0))
        norms = torch.linalg.vector_norm(stack.gradients, dim=1)
        assert norms.isfinite().all()
        clip_gradients(stack.gradients, norms, LARGEST_NORM)
        row.grad = stack.gradients[0]
        optimizer.step()

    return step


def their_step(model: torch.nn.Module, num_clips: int, precision: str) -> Callable[[], None]:
    """Return a training step of the released form."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    batch, labels = paper_batch(num_clips), torch.arange(num_clips) % PAPER_CLASSES

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = training_loss(model, batch, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()

    return step


def measure(name: str, num_clips: int, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of one head, one a precision."""
    preset, form = RELEASED[name]
    losses = ["prediction"] if name == "sfi" else []
    sides = {}
    for precision in PRECISIONS:
        torch.manual_seed(0)
        head = build_at_paper_size(name, preset, losses)
        sides[f"theirs {precision}"] = their_step(form(head), num_clips, precision)
        sides[f"ours {precision}"] = our_step(head, num_clips, precision)
    operations = {side: count(step) for side, step in sides.items()}
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds + 1):
        for side, step in sides.items():
            started = clock()
            step()
            if turn:  # the first warms up
                seconds[side].append(clock() - started)

    def ratio(over: str, under: str) -> float:
        return median(list(np.divide(seconds[over], seconds[under])))

    return [
        {
            "head": name if not losses else f"{name} + prediction",
            "preset": preset,
            "precision": precision,
            "their_gflop": operations[f"theirs {precision}"] / 1e9,
            "our_gflop": operations[f"ours {precision}"] / 1e9,
            "their_ms": 1e3 * median(seconds[f"theirs {precision}"]),
            "our_ms": 1e3 * median(seconds[f"ours {precision}"]),
            "ratio": ratio(f"theirs {precision}", f"ours {precision}"),
            "over_our_fp32": ratio("ours fp32", f"ours {precision}"),
        }
        for precision in PRECISIONS
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| head | preset | precision | released, ms | ifcar, ms | times | GFLOP, theirs | ours | ours in fp32 / this |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['head']} | {r['preset']} | {r['precision']} | {r['their_ms']:,.0f} | {r['our_ms']:,.0f} "
        f"| {r['ratio']:.2f} | {r['their_gflop']:.1f} | {r['our_gflop']:.1f} | {r['over_our_fp32']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--heads", choices=list(RELEASED), nargs="+")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as every command does
    before = facts()
    num_clips, rounds = (8, 1) if options.small else (PAPER_BATCH, options.rounds)
    rows = [row for name in options.heads or RELEASED for row in measure(name, num_clips, rounds)]
    print(table(rows))
    if not options.small:
        sizes = {"channels": PAPER_SPEC.channels, "clips": num_clips, "rounds": rounds}
        content = {"load_1min_before": before["load_1min"], **sizes, "rows": rows}
        name = "-".join(["released-heads", *(options.heads or []), f"{torch.get_num_threads()}-threads"])
        print(save(name, content))


if __name__ == "__main__":
    main()
