"""Embeddings that can be stacked."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaledEmbedding(nn.Embedding):
    """`nn.Embedding` whose rows start `scale` times as large as torch draws them, with a deviation of 1."""

    def __init__(
        self,
        num_rows: int,
        width: int,
        *,
        padding_idx: int | None = None,
        scale: float = 1.0,
        scale_grad_by_freq: bool = False,
    ) -> None:
        self.scale = scale  # first, since nn.Embedding draws the rows as it is made
        super().__init__(num_rows, width, padding_idx=padding_idx, scale_grad_by_freq=scale_grad_by_freq)

    def reset_parameters(self) -> None:
        """Draw the rows as torch does and scale them."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(self.scale)


class OneHotEmbedding(ScaledEmbedding):
    """`nn.Embedding` as a product with one-hot rows, which can be stacked; row 0 is padding and does not train.

    Args:
        num_rows: how many there are, the padding included.
        width: of a row.
        scale: of the initial rows.
        scale_grad_by_freq: divide a row's gradient by its count in the batch.
    """

    def __init__(self, num_rows: int, width: int, *, scale: float = 1.0, scale_grad_by_freq: bool = False) -> None:
        super().__init__(num_rows, width, padding_idx=0, scale=scale, scale_grad_by_freq=scale_grad_by_freq)

    def forward(self, numbers: Tensor) -> Tensor:
        """Map (…) to (…, width)."""
        one_hot, table = self.as_product(numbers)
        return one_hot @ table

    def as_product(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return what of (…) numbers is multiplied to embed them: (…, num_rows), one-hot, and (num_rows, width)."""
        known = torch.arange(self.num_embeddings, device=numbers.device)
        one_hot = (numbers.unsqueeze(-1) == known).to(self.weight.dtype)
        share = (known > 0).to(self.weight.dtype)
        if self.scale_grad_by_freq:
            share = share / one_hot.flatten(0, -2).sum(0).clamp(min=1)
        constant = self.weight.detach()
        return one_hot, constant + (self.weight - constant) * share.unsqueeze(1)
