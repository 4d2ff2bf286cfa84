"""Several processes that train one model, started by torchrun; one process alone is a group of one.

Each process decodes and computes its share of a batch; gradients are added up by DistributedDataParallel, over gloo on
processors and NCCL on GPUs. Process 0 writes files and talks. All processes need the same data and run folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ifcar.devices import choose_device
from ifcar.errors import IfcarError, InputError, LostProcessError, one_line

T = TypeVar("T")
TIMEOUT_MINUTES = 10  # a process that waits longer than this for another gives up


def process_number() -> int:
    """Return this process's number under torchrun; 0 without it."""
    return int(os.environ.get("RANK", "0"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The processes of a run.

    Args:
        number: of this process, from 0.
        size: how many there are.
        device: where this one computes.
    """

    number: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.number == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of every process's tensor of this shape."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, part: T) -> list[T]:
        """Return every process's object, in order of their numbers."""
        if self.size == 1:
            return [part]
        parts: list[T | None] = [None] * self.size
        dist.all_gather_object(parts, part)
        return [value for value in parts if value is not None]

    def decide(self, make: Callable[[], T]) -> T:
        """Let process 0 make a value, and return it, or raise the user's error that it met, in all of them."""
        if self.size == 1:
            return make()
        outcome: list[T | IfcarError | None] = [None]
        if self.is_first:
            try:
                outcome = [make()]
            except IfcarError as error:
                outcome = [error]
        dist.broadcast_object_list(outcome, src=0)
        (value,) = outcome
        if isinstance(value, IfcarError):
            raise value
        return value  # type: ignore[return-value]


@contextmanager
def open_group(device: str | None) -> Iterator[Group]:
    """Join the processes that torchrun started.

    Args:
        device: of a process alone, or "cpu" or "cuda" for all; default: cuda where there is one.

    Raises:
        InputError: the device cannot be used.
        LostProcessError: another process ended or did not answer in time.
    """
    size, number = int(os.environ.get("WORLD_SIZE", "1")), process_number()
    chosen = choose_device(device)
    if size == 1:
        yield Group(number=0, size=1, device=torch.device(chosen))
        return
    if ":" in chosen:
        raise InputError(f"--device {chosen}: torchrun's processes each take a device; give --device cpu or cuda")
    on = torch.device(chosen)
    if on.type == "cuda":
        on = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(on)
    dist.init_process_group("nccl" if on.type == "cuda" else "gloo", timeout=timedelta(minutes=TIMEOUT_MINUTES))
    try:
        yield Group(number=number, size=size, device=on)
    except RuntimeError as error:
        if isinstance(error, IfcarError) or "memory" in str(error):
            raise
        raise LostProcessError(
            f"process {number} of {size} lost the others ({one_line(error)[:120]}); see what the others "
            "say, then go on from the last checkpoint with --resume"
        ) from error
    finally:
        dist.destroy_process_group()
