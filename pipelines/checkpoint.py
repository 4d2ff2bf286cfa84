"""Saving a training run in the middle, as safetensors and JSON, so that it goes on to the same end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ifcar.cache.durable import fsync_path
from ifcar.errors import InputError
from ifcar.heads.contract import Head
from ifcar.pipelines.train import TrainState

NAME = "checkpoint.safetensors"


def save_checkpoint(folder: Path, head: Head, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    """Write everything that changes while training, atomically."""
    tensors = {f"head/{k}": v for k, v in head.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in state.best_weights.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": v for k, v in slots.items() if isinstance(v, Tensor)}
    tensors["random/torch"] = torch.get_rng_state()
    facts = {
        "phase": state.phase,
        "step": state.step,
        "best_score": state.best_score,
        "best_step": state.best_step,
        "history": state.history,
    }
    save_tensors(folder / NAME, tensors, {"state": json.dumps(facts)})


def load_state(folder: Path) -> TrainState | None:
    """Return the training state of a checkpoint, or None when there is none."""
    if not (folder / NAME).is_file():
        return None
    tensors, facts = _read(folder)
    score = facts["best_score"]
    return TrainState(
        phase=str(facts["phase"]),
        step=int(facts["step"]),
        best_score=None if score is None else (score[0], score[1]),
        best_step=int(facts["best_step"]),
        best_weights=_below(tensors, "best/"),
        history=list(facts["history"]),
    )


def restore_model(folder: Path, head: Head, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights, optimiser state and random state back."""
    tensors, _ = _read(folder)
    head.load_state_dict(_below(tensors, "head/"))
    content = optimizer.state_dict()
    content["state"] = {}
    for key, value in _below(tensors, "optimizer/").items():
        index, _, slot = key.partition("/")
        content["state"].setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict(content)
    torch.set_rng_state(tensors["random/torch"])


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file through a temporary file, fsync and rename."""
    temporary = path.with_name(path.name + ".tmp")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary, metadata=metadata)
    fsync_path(temporary)
    temporary.replace(path)
    fsync_path(path.parent)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises InputError when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train the run again") from error


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = folder / NAME
    tensors = load_tensors(path)
    with safe_open(path, framework="pt") as file:
        return tensors, json.loads(file.metadata()["state"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
