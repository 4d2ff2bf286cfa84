"""Where the rows that a run needs are kept: in the GPU's memory, in main memory, or on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ifcar.errors import InputError

if TYPE_CHECKING:
    import torch

Place = Literal["gpu", "ram", "stream"]
Memory = Literal["auto", "gpu", "ram", "stream"]
PRELOAD_SHARE = 0.5  # of the memory that is free


def choose_place(memory: Memory, num_bytes: int, device: torch.device) -> Place:
    """Return where rows are kept: "auto" is the GPU, else main memory, where they fit in half of what is free there.

    Args:
        memory: what was asked for.
        num_bytes: size of the rows' features.
        device: where batches go.

    Raises:
        InputError: the GPU is named and batches do not go to one.
    """
    import torch  # here, so that commands read `Memory` without it

    on_gpu = device.type == "cuda"
    if memory == "gpu" and not on_gpu:
        raise InputError(f"--memory gpu: batches go to {device}; expected --device cuda, or --memory ram")
    if memory != "auto":
        return memory
    if on_gpu and num_bytes <= PRELOAD_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "gpu"
    return "ram" if num_bytes <= PRELOAD_SHARE * free_bytes() else "stream"


def free_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes this process can still take before something has to be swapped or killed.

    The page cache counts as free. A limit of the process's control group (version 2) or of one above it counts too.

    Args:
        proc: where the process file system is.
        groups: where control groups are.
    """
    try:
        lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        own = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return free
    for line in own:
        if line.startswith("0::/"):
            folder = groups / line.removeprefix("0::/")
            while folder.is_relative_to(groups):
                free = min(free, _left_in_group(folder, free))
                folder = folder.parent
    return free


def _left_in_group(folder: Path, otherwise: int) -> int:
    """Return what a control group's limit leaves, or `otherwise` where there is none."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        pages = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(pages["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no such group, or "max": no limit
        return otherwise
