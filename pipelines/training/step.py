"""What a training step computes before weights move: losses and gradients, from tensors alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.stacks.noise import draw_noise
from ifcar.pipelines.stacks.objectives import Labels, Teachers, losses_of
from ifcar.pipelines.stacks.stack import Stack
from ifcar.pipelines.training.recorder import StepInputs, StepResult
from ifcar.pipelines.training.trainer import Trainer, TrainState


def step_inputs(
    trainer: Trainer, stack: Stack, state: TrainState, places: NDArray[np.int64], rows: NDArray[np.int64]
) -> StepInputs:
    """Read what a step of the first m members needs.

    Args:
        trainer: what is trained.
        stack: the heads still training, the first m of the trainer's.
        state: tells phase and step.
        places: (m, B), or (1, B) for all the same, which examples to train on.
        rows: the same shape, their rows.
    """
    members, device, per_head = trainer.members[: len(stack)], trainer.batches.device, len(places) > 1
    seeds = [member.seed for member in members]
    seen, asked = (rows, places) if per_head else (rows[0], places[0])
    examples, spaces = trainer.examples, dict.fromkeys(task.space for task in stack.template.tasks)

    def sent(values: NDArray[Any]) -> Tensor:
        # Not waited for: what is copied from pageable memory has left it when the call returns.
        return torch.from_numpy(values).to(device, non_blocking=True)

    taught, own = None if trainer.distil is None else examples.teachers, ("", examples.space)
    return StepInputs(
        per_head=per_head,
        arrays=trainer.batches.batch(seen, examples.order_of(asked)).arrays,
        noise=draw_noise(stack.template, seeds, state.phase, state.step, places.shape[1], device),
        targets={space: sent(examples.labels_in(space).targets[places]) for space in spaces},
        teachers={} if taught is None else {space: sent(taught[places]) for space in spaces if space in own},
        aux_weights={
            name: sent(np.array([member.aux_weights[name] for member in members])) for name in members[0].aux_weights
        },
    )


def compute_step(trainer: Trainer, stack: Stack, inputs: StepInputs) -> StepResult:
    """Find the losses of a step, and leave their gradients in the stack.

    Nothing here waits for a GPU or brings it values, so that a GPU can do it again by itself, see `StepRecorder`.
    """
    device, distil = trainer.batches.device, trainer.distil
    with torch.autocast(device.type, torch.bfloat16, enabled=trainer.precision == "bf16"):
        out = stack.score(InstanceBatch(inputs.arrays), per_head=inputs.per_head, noise=inputs.noise)

    def of_all(values: Tensor) -> Tensor:
        return values.expand(len(stack), *values.shape[1:])

    labels = {}
    for space, targets in inputs.targets.items():
        teachers = None
        if distil is not None and space in inputs.teachers:
            logits = of_all(inputs.teachers[space])
            teachers = Teachers(logits=logits, weight=distil.weight, temperature=distil.temperature)
        kind = trainer.examples.labels_in(space).kind
        labels[space] = Labels(targets=of_all(targets), kind=kind, teachers=teachers)
    losses = losses_of(out, stack.template.tasks, labels, inputs.aux_weights, trainer.label_smoothing)
    total = torch.stack(list(losses.values())).sum(0)
    stack.fill_gradients(total)
    norms = torch.linalg.vector_norm(stack.gradients, dim=1)
    return StepResult(
        losses={name: loss.detach().double() for name, loss in losses.items()},
        norms=norms,
        finite=(norms + total.detach()).isfinite(),
    )
