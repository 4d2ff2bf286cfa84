"""What training lowers: the class losses of a head's tasks and its weighted auxiliary losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ifcar.errors import InputError
from ifcar.heads.contract import HeadOutput, Task
from ifcar.heads.rows import add_up
from ifcar.pipelines.labels.contract import LabelKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What the clips of a batch are in one label space.

    Args:
        targets: (M, B) classes, or (M, B, K) labels.
        kind: of them.
    """

    targets: Tensor
    kind: LabelKind


def losses_of(
    out: HeadOutput,
    tasks: Sequence[Task],
    labels: Mapping[str, Labels],
    aux_weights: Sequence[Mapping[str, float]],
    label_smoothing: float,
) -> dict[str, Tensor]:
    """Return the losses of M heads by name; their sum is what each head's training lowers.

    Args:
        out: what the heads return of B clips, with the axis M in front.
        tasks: of the heads.
        labels: by the tasks' label spaces.
        aux_weights: what a head's own losses are multiplied by, of each head.
        label_smoothing: of the class losses.

    Returns:
        "classification" first, the weighted sum over tasks, then the weighted auxiliary losses, each (M,).

    Raises:
        InputError: a head gave an auxiliary loss that has no weight.
    """
    for name in out.losses:
        if not all(name in own for own in aux_weights):
            raise InputError(
                f"the head gave the auxiliary loss {name!r}, which has no weight in this run; a head gives those that "
                "are named in its `losses` only"
            )
    terms = []
    for task, scores in zip(tasks, out.by_task(), strict=True):
        loss = task.weight * _class_loss(task, scores, labels[task.space], label_smoothing)
        if task.name in out.log_variances:
            spread = out.log_variances[task.name]
            loss = (-spread).exp() * loss + spread / 2
        terms.append(loss)
    weighted = {name: loss * loss.new_tensor([own[name] for own in aux_weights]) for name, loss in out.losses.items()}
    return {"classification": add_up(terms), **weighted}


def _class_loss(task: Task, scores: Tensor, labels: Labels, label_smoothing: float) -> Tensor:
    """Return (M,) the mean over outputs and clips of the class loss of scores (M, B, O, K)."""
    if task.loss == "focal":
        each = [labels.kind.focal_loss(output, labels.targets) for output in scores.unbind(-2)]
    else:
        smoothing = {"label_smoothing": label_smoothing}
        each = [labels.kind.class_loss(output, labels.targets, **smoothing) for output in scores.unbind(-2)]
    return torch.stack(each).mean(0).mean(1)
