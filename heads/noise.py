"""Noise that a training step takes from outside, so that it is the same wherever and beside whatever a head trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Noise(nn.Module):
    """A layer that draws in training: noise uniform in [0, 1) of shape (B, *shape).

    The noise is a buffer that whoever trains sets before a step. Where it is unset, or of another number of clips,
    torch's global generator makes it. It lies outside the state dict.

    Args:
        shape: of one clip's noise.
    """

    noise: Tensor | None

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("noise", None, persistent=False)

    def drawn(self, num_clips: int, device: torch.device) -> Tensor:
        """Return the noise (B, *shape) of a step with `num_clips` clips."""
        if self.noise is None or len(self.noise) != num_clips:
            return torch.rand((num_clips, *self.shape), device=device)
        return self.noise

    def extra_repr(self) -> str:
        """Return what tells this layer from another in a printed model."""
        return f"shape={self.shape}"


@contextmanager
def seeded(noise: Tensor) -> Iterator[None]:
    """Let torch's global generator draw from the first number of `noise` on, and put it back afterwards."""
    with torch.random.fork_rng([noise.device] if noise.is_cuda else []):
        torch.manual_seed(int(noise[0].double() * 2**32))
        yield
