"""What a phase of training is made of, and everything that changes while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ifcar.errors import IfcarError
from ifcar.pipelines.feed.batches import BatchReader
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.feed.order import Order
from ifcar.pipelines.runs.distil import DistilConfig
from ifcar.pipelines.runs.schedule import Plan
from ifcar.pipelines.scoring.scores import Metrics
from ifcar.pipelines.stacks.stack import Stack
from ifcar.pipelines.training.recorder import StepRecorder


class NonFiniteError(IfcarError):
    """A loss or gradient stopped being a number; the weights were not moved."""


def not_finite(step: int, losses: Mapping[str, float], clips: Sequence[str], advice: str) -> str:
    """Return the message of a step whose loss, or else gradient, is not finite."""
    what = "gradient" if math.isfinite(sum(losses.values())) else "loss"
    parts = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    return (
        f"{what} is not finite at step {step} ({parts}); weights left as they were; clips: {', '.join(clips)}. "
        f"Lower --lr, or {advice}"
    )


@dataclass(kw_only=True)
class RunState:
    """What one training has found so far, besides its weights.

    Args:
        best_score: highest `Metrics.rank` of the held-out part so far, or None without one.
        best_step: the step it was reached at.
        best_weights: the head's state there.
        history: one record a round.
        failure: why it was stopped before its end, or None.
    """

    best_score: tuple[float, float] | None = None
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    def end_round(
        self, record: dict[str, Any], held_out: Metrics | None, weights: Callable[[], dict[str, Tensor]]
    ) -> None:
        """Append a round to the history, and keep its weights where no held-out part has scored as high.

        Args:
            record: what history.jsonl says of the round, with its "step".
            held_out: metrics of the held-out part, or None without one.
            weights: gives a copy of the state.
        """
        if held_out is not None:
            record = record | held_out.held_out_record()
            if self.best_score is None or held_out.rank > self.best_score:
                self.best_score, self.best_step, self.best_weights = held_out.rank, record["step"], weights()
        self.history.append(record)

    def losses(self, phase: str) -> list[float]:
        """Return the mean training loss of each round of a phase, as far as it is."""
        of_training = [r for r in self.history if r["phase"] == phase]
        return [
            sum(value for name, value in r.items() if name.endswith("_loss") and not name.startswith("held_out"))
            for r in of_training
        ]

    def facts(self) -> dict[str, Any]:
        """Return everything but tensors, as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "best_weights"}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], best_weights: dict[str, Tensor]) -> Self:
        """Return the state whose facts, once in JSON, and best weights these are."""
        score = facts["best_score"]
        return cls(**{**facts, "best_score": None if score is None else tuple(score)}, best_weights=best_weights)


@dataclass(kw_only=True)
class TrainState:
    """Everything that changes while a fleet trains; a checkpoint holds this, the heads and the optimiser.

    Args:
        members: one of each run, in the fleet's order.
        phase: "fit", or "refit" for the second training on the whole training split.
        step: optimiser steps done in this phase.
        order: of the clips in an epoch; what it was at the start, wherever the rows are kept later.
        runs: ids of the runs, in the same order.
    """

    members: list[RunState]
    phase: Literal["fit", "refit"] = "fit"
    step: int = 0
    order: Order = "full"
    runs: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class FleetRun:
    """What one run brings to a phase of its fleet's training.

    Args:
        plan: its schedule; the plans of a fleet differ in learning rate and weight decay only.
        stop_step: train up to this step of the plan.
        aux_weights: weight of each auxiliary loss.
        seed: of batch order, view choice and dropout.
        state: what it has found so far.
    """

    plan: Plan
    stop_step: int
    aux_weights: Mapping[str, float]
    seed: int
    state: RunState

    def lr_at(self, step: int, phase: str) -> float:
        """Return the learning rate of a step of a phase."""
        return self.plan.lr_at(step, self.state.losses(phase) if self.plan.decay == "plateau" else ())


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a phase of training is made of.

    Args:
        stack: the heads, in the order of `members`.
        members: the runs; none stops later than the one before it, so those still training are the stack's first.
        optimizer: one group a member, over its row of weights.
        batches: reads rows.
        examples: the clips trained on.
        held_out: the clips that choose the stopping points, or None.
        label_smoothing: of the class loss.
        precision: "fp32", or "bf16" for the products of the forward pass.
        classifier_only: everything but the classifier is frozen and runs in evaluation mode.
        order: of the clips in an epoch.
        distil: how the examples' teachers count, None without.
        recorder: computes its steps.
    """

    stack: Stack
    members: Sequence[FleetRun]
    optimizer: torch.optim.Optimizer
    batches: BatchReader
    examples: Examples
    held_out: Examples | None
    label_smoothing: float
    precision: Literal["fp32", "bf16"]
    classifier_only: bool
    order: Order = "full"
    distil: DistilConfig | None = None
    recorder: StepRecorder = field(default_factory=StepRecorder)


def make_optimizer(stack: Stack, members: Sequence[FleetRun]) -> torch.optim.Optimizer:
    """Return SGD, or Adam with decoupled or coupled weight decay, at each member's rates."""
    plan = members[0].plan
    groups = [
        {"params": [row], "lr": m.plan.lr, "weight_decay": m.plan.weight_decay if plan.decay_vectors else 0.0}
        for row, m in zip(stack.weights.unbind(), members, strict=True)
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=plan.momentum, fused=True)
    kind = torch.optim.Adam if plan.coupled_decay else torch.optim.AdamW
    return kind(groups, lr=0.0, fused=True)


def clip_gradients(gradients: Tensor, norms: Tensor, largest: float) -> None:
    """Scale each row of (M, W) whose norm, of `norms` (M,), is above `largest` down to it, like `clip_grad_norm_`."""
    factors = (largest / (norms + 1e-6)).clamp(max=1.0)
    if (factors < 1).any():  # multiplying all by 1 would read and write every gradient for nothing
        gradients.mul_(factors.unsqueeze(1))


def decay_matrices(stack: Stack, place: int, factor: float) -> None:
    """Multiply a head's parameters of two and more dimensions by `factor`: decoupled decay that spares the others."""
    with torch.no_grad():
        for first, end, shape in stack.columns.values():
            if len(shape) > 1:
                stack.weights[place, first:end].mul_(factor)
