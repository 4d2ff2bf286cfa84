"""Saving a fine-tuning in the middle, so that it goes on to the same end.

One network, part of it of any shape and frozen, has no rows as a stack of heads has: its state is kept by name.
"""

from __future__ import annotations

import json
from pathlib import Path

from ifcar.pipelines.finetune.trainer import LiveState, LiveTrainer
from ifcar.pipelines.runs.weights import save_tensors
from ifcar.pipelines.training.checkpoint import NAME, below, load_optimizer, optimizer_tensors, read_checkpoint


def save_live(folder: Path, trainer: LiveTrainer, state: LiveState) -> None:
    """Write everything that changes while training, atomically."""
    tensors = {f"model/{k}": v for k, v in trainer.model.state_dict().items()}
    tensors |= optimizer_tensors(trainer.optimizer)
    tensors |= {f"best/{k}": v for k, v in state.best_weights.items()}
    save_tensors(folder / NAME, tensors, {"state": json.dumps(state.facts())})


def load_live(folder: Path, trainer: LiveTrainer) -> LiveState:
    """Put a checkpoint's model and optimiser state back, and return the state; a fresh one where there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not (folder / NAME).is_file():
        return LiveState()
    tensors, facts = read_checkpoint(folder)
    trainer.model.load_state_dict(below(tensors, "model/"))
    # Earlier versions called these tensors "momentum/PARAMETER'S NUMBER".
    tensors |= {f"optimizer/{k}/momentum_buffer": v for k, v in below(tensors, "momentum/").items()}
    load_optimizer(trainer.optimizer, tensors)
    return LiveState.of_facts(facts, below(tensors, "best/"))
