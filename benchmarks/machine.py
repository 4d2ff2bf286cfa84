"""What a benchmark says about where it ran, and how it times two sides fairly."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"


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


def synchronise(device: str) -> None:
    """Wait for the GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def median(values: list[float]) -> float:
    """Return the median."""
    return float(np.median(values))


def matmul_rate(dtype: torch.dtype, device: str = "cpu", size: int = 2048, rounds: int = 7) -> float:
    """Return the FLOP/s of a large square matrix product, the machine's practical peak."""
    size = size if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = interleaved({"matmul": lambda: a @ b}, rounds, device)["matmul"]
    return 2 * size**3 / median(seconds)


def save(name: str, content: Mapping[str, Any], device: str = "cpu") -> Path:
    """Write benchmarks/results/NAME-HARDWARE.json and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{hardware(device)}.json"
    path.write_text(json.dumps({**facts(device), **content}, indent=1) + "\n")
    return path
