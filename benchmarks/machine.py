"""What a benchmark says about where it ran, and how it times two sides fairly."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
WEIGHTS = "BENCHMARK_WEIGHTS"
"""Variable that names the folder of random weights."""


def hardware(device: str = "cpu") -> str:
    """Return a short name of the processor or the GPU, fit for a file name."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = f"{names[0] if names else platform.processor() or 'cpu'} {os.cpu_count()} cores"
    return "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())


def facts(device: str = "cpu") -> dict[str, Any]:
    """Return hardware, versions, threads and the load of the last minute."""
    return {
        "hardware": hardware(device),
        "device": device,
        "threads": torch.get_num_threads(),
        "load_1min": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def interleaved(
    sides: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu", *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Call every side in turn, `rounds` times after one warm-up, and return the seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values() if warm_up else ():
        side()
    for _ in range(rounds):
        for name, side in sides.items():
            synchronise(device)
            started = time.perf_counter()
            side()
            synchronise(device)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def repeated(
    side: Callable[[], object], device: str = "cpu", *, seconds: float = 0.5, least: int = 3, most: int = 50
) -> list[float]:
    """Call one side, after one warm-up, until this much time is over, and return the seconds of each call."""
    side()
    synchronise(device)
    found: list[float] = []
    until = time.perf_counter() + seconds
    while len(found) < least or (len(found) < most and time.perf_counter() < until):
        started = time.perf_counter()
        side()
        synchronise(device)
        found.append(time.perf_counter() - started)
    return found


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let float32 products and convolutions round what they read to TF32, or not, in the block."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = allowed
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def synchronise(device: str) -> None:
    """Wait for the GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def median(values: list[float]) -> float:
    """Return the median."""
    return float(np.median(values))


def matmul_rate(dtype: torch.dtype, device: str = "cpu", size: int | None = None, rounds: int = 7) -> float:
    """Return the FLOP/s of a large square matrix product, the machine's practical peak."""
    size = size or matmul_size(device)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = interleaved({"matmul": lambda: a @ b}, rounds, device)["matmul"]
    return 2 * size**3 / median(seconds)


def matmul_size(device: str) -> int:
    """Return the side of a product that is large on a device."""
    return 2048 if device == "cpu" else 8192


def peaks(device: str, *, small: bool = False) -> dict[str, float]:
    """Return the FLOP/s of a large product in fp32, on a GPU also with TF32 inputs, and in bf16, by these names."""
    size = 128 if small else None
    kinds = {"fp32": (torch.float32, False), "tf32": (torch.float32, True), "bf16": (torch.bfloat16, False)}
    found = {}
    for name, (dtype, allowed) in kinds.items():
        if name != "tf32" or device.startswith("cuda"):
            with tf32(allowed):
                found[name] = matmul_rate(dtype, device, size)
    return found


def copy_rate(device: str, num_bytes: int = 2**28) -> float:
    """Return the bytes a second that a large copy reads; it writes as many."""
    source = torch.randint(0, 256, (num_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return source.numel() / median(interleaved({"copy": lambda: target.copy_(source)}, 5, device)["copy"])


def save(name: str, content: Mapping[str, Any], device: str = "cpu") -> Path:
    """Write benchmarks/results/NAME-HARDWARE.json and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{hardware(device)}.json"
    path.write_text(json.dumps({**facts(device), **content}, indent=1) + "\n")
    return path
