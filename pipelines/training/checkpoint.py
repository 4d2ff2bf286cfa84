"""Saving a fleet in the middle of its training, as safetensors and JSON, so that it goes on to the same end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ifcar.errors import InputError
from ifcar.pipelines.runs.weights import load_tensors, save_tensors
from ifcar.pipelines.training.trainer import RunState, Trainer, TrainState

NAME = "checkpoint.safetensors"


def save_checkpoint(folder: Path, trainer: Trainer, state: TrainState) -> None:
    """Write everything that changes while training, atomically."""
    tensors = {f"heads/{k}": v for k, v in trainer.stack.states().items()}
    tensors |= optimizer_tensors(trainer.optimizer)
    members = []
    for number, member in enumerate(state.members):
        tensors |= {f"best/{number}/{k}": v for k, v in member.best_weights.items()}
        members.append(member.facts())
    facts = {
        "phase": state.phase,
        "step": state.step,
        "order": state.order,
        "members": members,
        "runs": list(state.runs),
    }
    save_tensors(folder / NAME, tensors, {"state": json.dumps(facts)})


def load_state(folder: Path, runs: Sequence[str]) -> TrainState | None:
    """Return the training state of a checkpoint of these runs, named by their ids, or None when there is none.

    Raises:
        InputError: it is damaged, or of other runs.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    tensors, facts = read_checkpoint(folder)
    # Earlier versions wrote no ids.
    if facts.get("runs", list(runs)) != list(runs) or len(facts["members"]) != len(runs):
        raise InputError(
            f"{path}: the checkpoint of other runs than those that are trained here; expected a folder with theirs, or "
            "without any; name another, or remove it"
        )
    members = [
        RunState.of_facts(member, below(tensors, f"best/{number}/")) for number, member in enumerate(facts["members"])
    ]
    return TrainState(phase=facts["phase"], step=int(facts["step"]), order=facts["order"], members=members, runs=runs)


def restore(folder: Path, trainer: Trainer) -> None:
    """Put a checkpoint's heads and optimiser state back into a trainer of the same phase."""
    tensors, _ = read_checkpoint(folder)
    heads = below(tensors, "heads/")
    for place in range(len(trainer.stack)):
        trainer.stack.load(place, {key: value[place] for key, value in heads.items()})
    load_optimizer(trainer.optimizer, tensors)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimiser remembers as a checkpoint holds it: "optimizer/PARAMETER'S NUMBER/NAME"."""
    state = optimizer.state_dict()["state"].items()
    return {f"optimizer/{row}/{k}": v for row, slots in state for k, v in slots.items() if isinstance(v, Tensor)}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, out of all tensors of a checkpoint."""
    content = optimizer.state_dict()
    content["state"] = {}
    for key, value in below(tensors, "optimizer/").items():
        row, _, slot = key.partition("/")
        content["state"].setdefault(int(row), {})[slot] = value
    optimizer.load_state_dict(content)


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors, and its state as JSON. Raises InputError when it is damaged."""
    path = folder / NAME
    tensors = load_tensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            return tensors, json.loads(file.metadata()["state"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is no checkpoint ({error!r}); remove it and train again from the start") from error


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
