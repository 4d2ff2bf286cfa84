"""A head's training step at the paper's size: its time, that of its operations, and what torch's profiler finds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine import interleaved, matmul_size, median, synchronise
from stack_steps import StackStep
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.flops import (
    PAPER_CLASSES,
    build_at_paper_size,
    count_training_flops,
    paper_batch,
    paper_size,
    training_loss,
)
from fixtures.plain_orn import plain_orn
from fixtures.plain_sfi import PlainSFI

from ifcar.cache.arrays import CacheSpec


class System(NamedTuple):
    """What is measured: a head, its preset, the auxiliary losses that are on, its streams where not the preset's."""

    head: str
    preset: str
    losses: tuple[str, ...] = ()
    streams: str | None = None

    @property
    def label(self) -> str:
        """The head, and its streams where they are not the preset's."""
        return self.head if self.streams is None else f"{self.head}, {self.streams}"


SYSTEMS = [
    System("sfi", "paper", ("prediction",)),
    System("sfi", "released", ("prediction",)),
    System("strg", "paper"),
    System("nl", "paper"),
    System("stin", "paper"),
    System("stin-nl", "paper"),
    System("base", "paper"),
    System("stin", "paper", streams="layout"),
    System("stin", "small", streams="layout"),
    System("orn", "paper", ("object_class",)),
]
PLAIN: dict[str, Callable[[Any], torch.nn.Module]] = {"sfi": PlainSFI, "orn": plain_orn}
COUNTED_PLAIN = ("orn",)  # the plain SFI has `nn.LSTM`, which torch's counter does not see
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make_plain_step(
    model: torch.nn.Module, spec: CacheSpec, device: str, num_clips: int, precision: str
) -> Callable[[], None]:
    """Return a function that does one training step of any module on the same clips."""
    model = model.to(device).train()
    batch = paper_batch(num_clips, spec).to(torch.device(device))
    labels = torch.arange(num_clips, device=device) % PAPER_CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)  # as in `fit-head`

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            loss = training_loss(model, batch, labels)
        loss.backward()
        optimizer.step()

    return step


def make_matmul(device: str, dtype: torch.dtype, size: int) -> tuple[Callable[[], object], int]:
    """Return a square product and its operations."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2 * size**3


def profiled(step: Callable[[], None], device: str, count: int = 3) -> tuple[float, float]:
    """Return the seconds of a step that torch's profiler finds, and the share of these in matrix products.

    On a GPU these are the seconds in which it computes: a step that takes longer waits for its kernels to be launched.
    """
    cuda = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as recorded:
        for _ in range(count):
            step()
        synchronise(device)
    events = recorded.key_averages()
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    # A kernel's time stands by itself, with the operator that launched it, and with the step around it.
    whole = [e for e in events if not cuda or (e.device_type == DeviceType.CUDA and not e.is_user_annotation)]
    total = sum(getattr(event, own) for event in whole)
    products = sum(getattr(event, own) for event in events if event.key in PRODUCTS)
    return total / count / 1e6, float(products / total)


def count(step: Callable[[], object]) -> int:
    """Return the operations of a step, counted while it runs."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def measure(
    system: System, precision: str, device: str, num_clips: int, rounds: int, *, size: int | None = None
) -> dict[str, Any]:
    """Return one row of the table; `size` is the side of the product beside it, a large one unless given."""
    name, preset, losses, streams = system
    torch.manual_seed(0)
    spec, own_clips = paper_size(name)
    num_clips = min(num_clips, own_clips)
    head = build_at_paper_size(name, preset, losses, streams)
    matmul, matmul_flops = make_matmul(device, PRECISIONS[precision], size or matmul_size(device))
    labels = torch.arange(num_clips) % PAPER_CLASSES
    plain = make_plain_step(PLAIN[name](head), spec, device, num_clips, precision) if name in PLAIN else None
    step = StackStep(head, paper_batch(num_clips, spec), labels, device, precision)
    sides: dict[str, Callable[[], object]] = {"matmul": matmul, "step": step}
    if plain is not None:
        sides["plain"] = plain
    seconds = {side: median(values) for side, values in interleaved(sides, rounds, device).items()}
    flops = count(step.launched)
    plain_flops = None
    if name in COUNTED_PLAIN:
        plain_flops = count_training_flops(name, preset, num_clips=num_clips, form=PLAIN[name], losses=losses)
    rate = matmul_flops / seconds["matmul"]
    profiled_seconds, share = profiled(step, device, min(3, rounds))
    return {
        "head": system.label,
        "preset": preset,
        "precision": precision,
        "parameters": sum(p.numel() for p in head.parameters()),
        "gflop": flops / 1e9,
        "step_ms": 1e3 * seconds["step"],
        "matmul_gflops_per_sec": rate / 1e9,
        "ratio": seconds["step"] * rate / flops,
        "profiled_ms": 1e3 * profiled_seconds,
        "product_share": share,
        "clips": num_clips,
        "plain_gflop": None if plain_flops is None else plain_flops / 1e9,
        "plain_ms": 1e3 * seconds["plain"] if "plain" in seconds else None,
    }
