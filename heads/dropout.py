"""Dropout whose noise can be given from outside, so that it is the same wherever and beside whatever a head trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero each value with probability p in training and scale the others by 1 / (1 − p).

    The noise, uniform in [0, 1) and of shape (B, *shape), is a buffer that whoever trains sets before a step. Where it
    is unset, or of another number of clips, torch's global generator makes it. Noise and p are buffers outside the
    state dict, so that heads that differ in both can be stacked.

    Args:
        p: share of values dropped, in [0, 1).
        shape: what one clip's values have, for example (T′, N, D). Noise covers empty slots too, so that a value's fate
            does not depend on what is in them.
    """

    p: Tensor
    noise: Tensor | None

    def __init__(self, p: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("p", torch.tensor(p), persistent=False)
        self.register_buffer("noise", None, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, *shape) to the same shape; the identity in evaluation."""
        if not self.training:
            return values
        noise = self.noise
        if noise is None or len(noise) != len(values):
            noise = torch.rand(values.shape, device=values.device)
        return values * ((noise >= self.p) / (1 - self.p)).to(values.dtype)

    def extra_repr(self) -> str:
        """Return what tells this layer from another in a printed model."""
        return f"shape={self.shape}"
