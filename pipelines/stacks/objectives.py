"""What training lowers: the class losses of a head's tasks and its weighted auxiliary losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ifcar.errors import InputError
from ifcar.heads.contract import HeadOutput, Task
from ifcar.heads.distillation import soft_cross_entropy
from ifcar.heads.rows import add_up
from ifcar.pipelines.labels.contract import LabelKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Teachers:
    """What other heads answer to the clips of a batch, and how that counts.

    Args:
        logits: (M, B, S, K) of S teachers.
        weight: w: labels count 1 − w, the teachers w.
        temperature: τ.
    """

    logits: Tensor
    weight: float
    temperature: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What the clips of a batch are in one label space.

    Args:
        targets: (M, B) classes, or (M, B, K) labels.
        kind: of them.
        teachers: what is learned beside them, None where nothing is.
    """

    targets: Tensor
    kind: LabelKind
    teachers: Teachers | None = None


def losses_of(
    out: HeadOutput,
    tasks: Sequence[Task],
    labels: Mapping[str, Labels],
    aux_weights: Mapping[str, Tensor],
    label_smoothing: float,
) -> dict[str, Tensor]:
    """Return the losses of M heads by name; their sum is what each head's training lowers.

    Args:
        out: what the heads return of B clips, with the axis M in front.
        tasks: of the heads.
        labels: by the tasks' label spaces.
        aux_weights: (M,) what each head's own loss of a name is multiplied by.
        label_smoothing: of the class losses; focal ones have none, see `check_smoothing`.

    Returns:
        "classification" first, the weighted sum over tasks, then "teachers" where there are some, and the weighted
        auxiliary losses, each (M,).

    Raises:
        InputError: a head gave an auxiliary loss that has no weight.
    """
    for name in out.losses:
        if name not in aux_weights:
            raise InputError(
                f"the head gave the auxiliary loss {name!r}, which has no weight in this run; a head gives those that "
                "are named in its `losses` only"
            )
    terms, taught = [], []
    for task, scores in zip(tasks, out.by_task(), strict=True):
        kind = labels[task.space].kind
        weight = task.weight * (1.0 if kind.exclusive else task.multi_weight)
        loss = weight * _class_loss(task, scores, labels[task.space], label_smoothing)
        if (teachers := labels[task.space].teachers) is not None:
            loss = (1 - teachers.weight) * loss
            taught.append(teachers.weight * _teachers_loss(scores, teachers))
        if task.name in out.log_variances:
            spread = out.log_variances[task.name]
            loss = (-spread).exp() * loss + spread / 2
        terms.append(loss)
    weighted = {name: loss * aux_weights[name].to(loss.dtype) for name, loss in out.losses.items()}
    return {"classification": add_up(terms), **({"teachers": add_up(taught)} if taught else {}), **weighted}


def check_smoothing(tasks: Sequence[Task], kinds: Mapping[str, LabelKind], label_smoothing: float) -> None:
    """Raise InputError where labels, of these kinds by space, would be smoothed and no class loss smooths them."""
    if label_smoothing and all(_is_focal(task, kinds[task.space]) for task in tasks):
        raise InputError(
            f"label_smoothing {label_smoothing:g} would be ignored: every class loss is focal, which smooths no label; "
            "leave it out, or take another class loss"
        )


def _is_focal(task: Task, kind: LabelKind) -> bool:
    return task.loss == "focal" and not kind.exclusive


def _teachers_loss(scores: Tensor, teachers: Teachers) -> Tensor:
    """Return (M,) the mean over outputs and teachers of the soft cross entropies of scores (M, B, O, K)."""
    each = [
        soft_cross_entropy(output, teacher, teachers.temperature)
        for output in scores.unbind(-2)
        for teacher in teachers.logits.unbind(-2)
    ]
    return torch.stack(each).mean(0)


def _class_loss(task: Task, scores: Tensor, labels: Labels, label_smoothing: float) -> Tensor:
    """Return (M,) the mean over outputs and clips of the class loss of scores (M, B, O, K)."""
    if _is_focal(task, labels.kind):
        each = [labels.kind.focal_loss(output, labels.targets) for output in scores.unbind(-2)]
    else:
        smoothing = {"label_smoothing": label_smoothing}
        each = [labels.kind.class_loss(output, labels.targets, **smoothing) for output in scores.unbind(-2)]
    return torch.stack(each).mean(0).mean(1)
