"""Working on real rows only: padding is dropped before a layer sees it and restored as zeros after."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation over rows that also takes 0 or 1 training rows, using its running statistics there."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise (rows, channels)."""
        if self.training and rows.shape[0] < 2:
            return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(rows)


def linear_norm_relu(in_dim: int, out_dim: int) -> nn.Sequential:
    """Return Linear (no bias) → RowNorm → ReLU."""
    return nn.Sequential(nn.Linear(in_dim, out_dim, bias=False), RowNorm(out_dim), nn.ReLU())


def scatter_rows(rows: Tensor, mask: Tensor) -> Tensor:
    """Put (M, D) rows where `mask` is True and zeros elsewhere: shape (*mask.shape, D)."""
    out = rows.new_zeros((*mask.shape, rows.shape[-1]))
    out[mask] = rows
    return out


def masked_mean(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Average `values` (…, D) over axis `dim` of `mask`, counting only True; zero where nothing is True."""
    weights = mask.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(dim) / weights.sum(dim).clamp(min=1)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax of `scores` over the last axis where `mask`, broadcast to them, is True; zero elsewhere."""
    # The lowest finite number, not −∞: a row without any True must not become NaN, also not in its gradient.
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0)


def slot_mask(instance_mask: Tensor) -> Tensor:
    """Return (B, N): True for a slot that is real in at least one of the steps of (B, T′, N)."""
    return instance_mask.any(dim=1)


def step_index(num_frames: int, num_steps: int, device: torch.device) -> Tensor:
    """Return `ifcar.cache.schema.step_frames` as an index tensor."""
    return torch.arange(num_steps, device=device) * (num_frames // num_steps)
