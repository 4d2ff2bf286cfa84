"""Where the fleets of a grid train: a pool of processes here, or the nodes of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ifcar.pipelines.memory import free_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Room for fleets.

    Args:
        processes: fleets at once.
        device: "cpu", "cuda", …
        free: bytes of memory that are free for all of them.
        isolates: a process that dies takes no other fleet with it.
        executor: called with the number of processes; gives what runs them. A future whose process is gone raises
            BrokenExecutor.
    """

    processes: int
    device: str
    free: int
    isolates: bool
    executor: Callable[[int], AbstractContextManager[Executor]]


def local_bench(initializer: Callable[[], None], *, processes: int | None, device: str | None) -> Bench:
    """Return this machine's room.

    Args:
        initializer: called in every process first.
        processes: fleets at once; default: one a core, or a single one on a GPU.
        device: see `fit`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.startswith("cuda")
    context = multiprocessing.get_context("spawn")
    return Bench(
        processes=processes or (1 if cuda else os.cpu_count() or 1),
        device=device,
        free=free_on(device),
        isolates=False,
        executor=lambda number: ProcessPoolExecutor(number, mp_context=context, initializer=initializer),
    )


def free_on(device: str) -> int:
    """Return the bytes of memory that are free on a device of this machine."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return free_bytes()
