"""Dropout whose noise can be given from outside."""

from __future__ import annotations

import torch
from torch import Tensor

from ifcar.heads.noise import Noise


class Dropout(Noise):
    """Zero each value with probability p in training and scale the others by 1 / (1 − p).

    p is a buffer outside the state dict, so that heads that differ in it can be stacked.

    Args:
        p: share of values dropped, in [0, 1).
        shape: what one clip's values have, for example (T′, N, D). Noise covers empty slots too, so that a value's fate
            does not depend on what is in them.
    """

    p: Tensor

    def __init__(self, p: float, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.register_buffer("p", torch.tensor(p), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, *shape) to the same shape; the identity in evaluation."""
        if not self.training:
            return values
        noise = self.drawn(len(values), values.device)
        return values * ((noise >= self.p) / (1 - self.p)).to(values.dtype)
