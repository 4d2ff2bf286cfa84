"""A head's training step as `fit-head` takes it: stacked, and on a GPU recorded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ifcar.heads.contract import Head, InstanceBatch
from ifcar.pipelines.stacks.noise import draw_noise
from ifcar.pipelines.stacks.stack import stack_heads
from ifcar.pipelines.training.recorder import StepInputs, StepRecorder, StepResult


class StackStep:
    """Steps of a head on the same clips; calling it takes one.

    Args:
        head: with the weights it starts from.
        batch: the clips, on any device.
        labels: (B,).
        device: where it trains.
        precision: "fp32" or "bf16".

    Attributes:
        stack: the head.
        inputs: of every step.
    """

    def __init__(self, head: Head, batch: InstanceBatch, labels: Tensor, device: str, precision: str = "fp32") -> None:
        self._device, self._precision = torch.device(device), precision
        self.stack = stack_heads([head], self._device)
        self.stack.set_training(True)
        self._row, self._recorder = self.stack.weights[0], StepRecorder()
        self._optimizer = torch.optim.SGD([self._row], lr=1e-3, momentum=0.9, fused=True)
        self.inputs = StepInputs(
            per_head=False,
            arrays=batch.to(self._device).arrays,
            noise=draw_noise(self.stack.template, [0], "fit", 0, len(labels), self._device),
            targets={"": labels.to(self._device)},
            teachers={},
            aux_weights={},
        )

    def __call__(self) -> None:
        """Take a step."""
        if not self.computed().finite.all():
            raise ArithmeticError("a loss or gradient is not finite")
        self._row.grad = self.stack.gradients[0]
        self._optimizer.step()

    @property
    def is_recorded(self) -> bool:
        """Whether a step was recorded, which happens on a GPU."""
        return self._recorder.is_recording

    def computed(self) -> StepResult:
        """Find losses and gradients as a step does, and move nothing but statistics."""
        return self._recorder(self.stack, self.launched, self.inputs)

    def launched(self, inputs: StepInputs | None = None) -> StepResult:
        """Do the same, kernel by kernel."""
        inputs = inputs or self.inputs
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            out = self.stack.score(InstanceBatch(inputs.arrays), per_head=False, noise=inputs.noise)
        scores = list(out.tasks.values()) or [out.logits]
        losses = {
            f"task {k}": F.cross_entropy(logits.flatten(0, -2), inputs.targets[""]) for k, logits in enumerate(scores)
        }
        losses |= out.losses
        total = torch.stack([loss.sum() for loss in losses.values()]).sum()[None]
        self.stack.fill_gradients(total)
        norms = torch.linalg.vector_norm(self.stack.gradients, dim=1)
        return StepResult(losses, norms, (norms + total.detach()).isfinite())
