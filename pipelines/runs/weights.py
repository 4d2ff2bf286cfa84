"""Weights as safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ifcar.cache.durable import write_atomic
from ifcar.errors import InputError


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all."""
    write_atomic(path, save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, metadata))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises InputError when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train the run again") from error
