"""What training lowers: the class loss and the weighted auxiliary losses of each head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ifcar.errors import InputError
from ifcar.pipelines.labels.kinds import LabelKind


def losses_of(
    outputs: Tensor,
    targets: Tensor,
    auxiliary: Mapping[str, Tensor],
    aux_weights: Sequence[Mapping[str, float]],
    kind: LabelKind,
    label_smoothing: float,
) -> dict[str, Tensor]:
    """Return the losses of M heads by name; their sum is what each head's training lowers.

    Args:
        outputs: (M, B, O, K) logits of every output that is trained; the class loss is the mean over outputs and clips.
        targets: (M, B) classes, or (M, B, K) labels.
        auxiliary: a head's own losses, each (M,).
        aux_weights: what each of them is multiplied by, of each head.
        kind: of the labels.
        label_smoothing: of the class loss.

    Returns:
        "classification" first, then the weighted auxiliary losses, each (M,).

    Raises:
        InputError: a head gave an auxiliary loss that has no weight.
    """
    for name in auxiliary:
        if not all(name in own for own in aux_weights):
            raise InputError(
                f"the head gave the auxiliary loss {name!r}, which has no weight in this run; a head gives those that "
                "are named in its `losses` only"
            )
    each = [kind.class_loss(output, targets, label_smoothing=label_smoothing) for output in outputs.unbind(-2)]
    weighted = {name: loss * loss.new_tensor([own[name] for own in aux_weights]) for name, loss in auxiliary.items()}
    return {"classification": torch.stack(each).mean(0).mean(1), **weighted}
