"""Attention among the nodes of a clip, and the non-local block made of it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ifcar.heads.rows import RowNorm, masked_softmax
from ifcar.heads.zero_linear import ZeroLinear

Similarity = Literal["softmax", "dot"]


class Attention(nn.Module):
    """Gather from all nodes of a clip what each node attends to.

        out_i = W Σ_j a_ij g(x_j) + b
        softmax:  a_ij = softmax_j(θ(x_i)ᵀ φ(x_j) / √d)
        dot:      a_ij = θ(x_i)ᵀ φ(x_j) / M,   M the number of real nodes

    θ, φ, g are linear with biases. Under softmax a bias of φ adds the same to a whole row and cancels, so it is built
    only on request.

    Source: Wang et al. 2018 (Non-local neural networks), §3.2, embedded Gaussian and dot product.
    Differs: the √d, which is in their released code.
    """

    def __init__(self, width: int, key_dim: int, similarity: Similarity, output: nn.Linear, key_bias: bool) -> None:
        super().__init__()
        self.similarity = similarity
        self.scale = key_dim**-0.5
        self.query = nn.Linear(width, key_dim)
        self.key = nn.Linear(width, key_dim, bias=key_bias)
        self.value = nn.Linear(width, key_dim)
        self.output = output

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            nodes: (B, M, D), finite everywhere.
            mask: (B, M), True = real.

        Returns:
            (B, M, D); rows where the mask is False are undefined.
        """
        scores = self.query(nodes) @ self.key(nodes).transpose(1, 2)  # (B, M, M)
        if self.similarity == "softmax":
            weights = masked_softmax(scores * self.scale, mask.unsqueeze(1))
        else:
            real = mask.sum(1).clamp(min=1).to(nodes.dtype)
            weights = scores.masked_fill(~mask.unsqueeze(1), 0) / real[:, None, None]
        out: Tensor = self.output(weights @ self.value(nodes))
        return out


class NonLocal(nn.Module):
    """Non-local block, z_i = x_i + W y_i, that starts as the identity.

    Source: Wang et al. 2018, Eq. 1–6.
    Differs: no batch normalisation after W; W itself starts at zero, where they start that layer's gain at zero
    (`SubsampledNonLocal` has that layer).
    """

    def __init__(self, width: int, key_dim: int, similarity: Similarity) -> None:
        super().__init__()
        output = ZeroLinear(key_dim, width)
        self.attention = Attention(width, key_dim, similarity, output, key_bias=similarity == "dot")

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Map nodes (B, M, D) with mask (B, M) to (B, M, D), zero where the mask is False."""
        out: Tensor = nodes + self.attention(nodes, mask)
        return out * mask.unsqueeze(-1).to(out.dtype)


class ZeroGainNorm(RowNorm):
    """A `RowNorm` whose gain starts at zero, so that what it normalises starts without a say."""

    def reset_parameters(self) -> None:
        """Set gain and bias to zero."""
        super().reset_parameters()
        with torch.no_grad():
            assert self.weight is not None
            self.weight.zero_()


class SubsampledNonLocal(nn.Module):
    """Non-local block on the map [D, T′, N] as the released code of Yan et al. 2020 has it.

        z = x + BN(W [ (θ(x)ᵀ pool φ(x)) / M · pool g(x) ] + b),   M the number of keys after the pooling

    θ, φ and g are linear with biases; pool is the maximum over 2 × 2 neighbours (steps, slots), a last odd one left
    out. Slots are neighbours by their order, so the block is not independent of it, and it knows no empty ones.

    Source: github.com/ruiyan1995/Interactive_Fusion_for_CAR, module STNL; sub-sampling: Wang et al. 2018, §3.3.
    """

    def __init__(self, width: int, key_dim: int, num_instances: int) -> None:
        super().__init__()
        self.num_instances = num_instances
        self.query, self.key, self.value = (nn.Linear(width, key_dim) for _ in range(3))
        self.output = nn.Linear(key_dim, width)
        self.norm = ZeroGainNorm(width)

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Map nodes (B, T′·N, D), step by step, to the same; `mask` (B, T′·N) is True everywhere."""
        key, value = self._pooled(self.key(nodes)), self._pooled(self.value(nodes))  # (B, keys, d)
        # θ(x)ᵀ k = xᵀ (W_θᵀ k) + b_θᵀ k and W Σ a v = Σ a (W v): there are fewer keys than nodes.
        affinity = nodes @ (key @ self.query.weight).transpose(1, 2) + (key @ self.query.bias).unsqueeze(1)
        gathered = affinity / key.shape[1] @ F.linear(value, self.output.weight) + self.output.bias
        out: Tensor = nodes + self.norm(gathered, mask)
        return out

    def _pooled(self, values: Tensor) -> Tensor:
        """Return the maxima (B, ⌊T′/2⌋·⌊N/2⌋, d) over 2 × 2 neighbours of (B, T′·N, d)."""
        grid = values.view(len(values), -1, self.num_instances, values.shape[2]).permute(0, 3, 1, 2)  # (B, d, T′, N)
        return F.max_pool2d(grid, 2).permute(0, 2, 3, 1).flatten(1, 2)
