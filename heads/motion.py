"""How instances move: what a box alone does not say."""

from __future__ import annotations

import torch
from torch import Tensor

MOTION_DIM = 4


def motion_of(boxes: Tensor, present: Tensor) -> Tensor:
    """Return how each instance's centre moves.

    Args:
        boxes: (B, T, N, 4); where absent, anything.
        present: (B, T, N), True where an instance has a box.

    Returns:
        (B, T, N, 4): offset from the previous step, zero unless present in both, and from the mean over the steps
        in which it is present.
    """
    there = present.unsqueeze(-1).to(boxes.dtype)
    centres = torch.where(present.unsqueeze(-1), boxes[..., :2], 0)
    moved = (centres[:, 1:] - centres[:, :-1]) * there[:, 1:] * there[:, :-1]
    offset = torch.cat([torch.zeros_like(centres[:, :1]), moved], dim=1)
    mean = centres.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
    return torch.cat([offset, (centres - mean) * there], dim=-1)
