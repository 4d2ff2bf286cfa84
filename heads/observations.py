"""Observations: independent snippets of a clip, each gathered by a space-time attention of its own.

Zhang et al., §3.1 and §3.4: Eq. 2–4, 12 and 13. A position is a place of the feature map at a step, or a bin of an
instance at a step; P of them in all.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ifcar.heads.rows import RowNorm, keep_real, masked_mean, masked_softmax

Query = Literal["last", "mean"]


class GroupedLinear(nn.Module):
    """K linear maps without bias, each of n groups of channels: g_k(f) = Concat(W_k1 f_1, …, W_kn f_n).

    Source: Zhang et al., Eq. 4 and 13.

    Args:
        num_maps: K.
        num_groups: n; divides both widths.
        in_dim: C.
        out_dim: C′.
    """

    def __init__(self, num_maps: int, num_groups: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_maps, num_groups, out_dim // num_groups, in_dim // num_groups))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as `nn.Linear` does for one group."""
        bound = 1 / math.sqrt(self.weight.shape[3])
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C), the same for all maps, or (B, K, C), one for each, to (B, K, C′)."""
        by_group = features.view(*features.shape[:-1], self.weight.shape[1], self.weight.shape[3])
        own = "bknc" if features.ndim == 3 else "bnc"
        return torch.einsum(f"kndc,{own}->bknd", self.weight, by_group).flatten(2)

    def transposed(self, values: Tensor) -> Tensor:
        """Map (B, K, C′) to (B, K, C) by the transposed weights."""
        by_group = values.view(*values.shape[:-1], *self.weight.shape[1:3])
        return torch.einsum("kndc,bknd->bknc", self.weight, by_group).flatten(2)


class Observations(nn.Module):
    """K observations of a clip.

        Attn_k = softmax_p( g_k^β(f_last)ᵀ g_k^γ(f_p) ),   Obs_k = Σ_p Attn_k,p g_k^α(f_p)

    Computed as  (W_k^γᵀ q_k)ᵀ f_p  and  W_k^α Σ_p Attn_k,p f_p,  the same function: the maps are linear, and neither
    g_k^γ nor g_k^α of P positions is ever made. The scale of the input's standardisation is folded in likewise, but not
    its shift, which would leave nothing of features that vary little around a large mean.

    Source: Zhang et al., Eq. 2–4, 12, 13. The "last row" of g_k^β(F_f) is read as that of the last position: the last
    step's last place. Query "mean" takes the mean over positions instead.
    """

    def __init__(
        self, num_observations: int, num_groups: int, in_dim: int, out_dim: int, query: Query, input_norm: bool
    ) -> None:
        super().__init__()
        self.query = query
        self.input_norm = RowNorm(in_dim, affine=False) if input_norm else None
        self.alpha, self.beta, self.gamma = (
            GroupedLinear(num_observations, num_groups, in_dim, out_dim) for _ in range(3)
        )

    def forward(self, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the observations.

        Args:
            positions: (B, P, C), finite everywhere.
            mask: (B, P), True = real.

        Returns:
            (B, K, C′), and the attention (B, K, P), zero where the mask is False.
        """
        mean, inverse = channel_scale(self.input_norm, positions, mask)
        positions = keep_real(positions - mean, mask)
        picked = positions[:, -1] if self.query == "last" else masked_mean(positions, mask, dim=1)
        key = self.gamma.transposed(self.beta(picked * inverse)) * inverse  # (B, K, C)
        attention = masked_softmax(key @ positions.transpose(1, 2), mask.unsqueeze(1))
        gathered = attention.to(positions.dtype) @ positions  # (B, K, C)
        return self.alpha(gathered * inverse), attention


def channel_scale(norm: RowNorm | None, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return (μ, 1/σ), each (C,), that standardise positions (B, P, C); 0 and 1 without a norm."""
    if norm is None:
        return positions.new_zeros(positions.shape[2]), positions.new_ones(positions.shape[2])
    return norm.centre_and_scale(keep_real(positions, mask).flatten(0, 1).unsqueeze(2), mask.flatten())
