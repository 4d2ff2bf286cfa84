"""Parts of CCAU (Rai et al. 2021): encoder stand-in, ConvGRU, attention over cells, and alignment."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import InputError
from ifcar.heads.dropout import Dropout
from ifcar.heads.rows import RowNorm, add_up

ATTENTION_DIM = 32
PROJECTION_DIM = 128


class BlockEncoder(nn.Module):
    """What stands in for a trained backbone: z = ReLU(W mean(map over the steps of a block) + b) of each cell.

    Args:
        spec: of the stream's cache.
        num_blocks: N, which divides T′.
        width: D.
        input_norm: standardise each channel first.
        rectify: end in a ReLU.

    Raises:
        InputError: T′ is no multiple of N.
    """

    def __init__(self, spec: CacheSpec, num_blocks: int, width: int, *, input_norm: bool, rectify: bool = True) -> None:
        super().__init__()
        if spec.num_steps % num_blocks:
            raise InputError(
                f"num_blocks is {num_blocks}; expected a divisor of the {spec.num_steps} feature steps of this cache: "
                "set num_blocks, or extract with other --frames"
            )
        self.num_blocks, self.rectify = num_blocks, rectify
        self.input_norm = RowNorm(spec.channels, affine=False) if input_norm else nn.Identity()
        self.linear = nn.Linear(spec.channels, width)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, T′, C) or (B, T′, C, H, W) to (B, N, HW, D), cells row by row."""
        features = features.to(self.linear.weight.dtype)
        cells = features.flatten(3) if features.dim() > 3 else features.unsqueeze(-1)
        rows = self.input_norm(cells.transpose(2, 3))
        blocks = rows.unflatten(1, (self.num_blocks, -1)).mean(2)
        out: Tensor = self.linear(blocks)
        return out.relu() if self.rectify else out


class ConvGRU(nn.Module):
    """A GRU of every cell with shared weights: a convolutional GRU of kernel 1, from a zero state.

        u = σ(W_u [z; h] + b_u);   r = σ(W_r [z; h] + b_r);   n = tanh(W_n [z; r ⊙ h] + b_n);   h ← (1 − u) ⊙ h + u ⊙ n

    Unlike `nn.GRU`, r acts before the product and u is the share of what is new. Dropout follows every step, and what
    it leaves is carried on.

    Args:
        width: D, of inputs and states.
        dropout: share of the state's values dropped.
        num_blocks: N, steps.
        num_cells: HW.
    """

    def __init__(self, width: int, dropout: float, num_blocks: int, num_cells: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(3, width, 2 * width))  # update, reset, new
        self.bias = nn.Parameter(torch.empty(3, width))
        self.dropout = Dropout(dropout, (num_blocks, num_cells, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw orthogonal weights; biases are zero."""
        with torch.no_grad():
            for gate in self.weight:
                nn.init.orthogonal_(gate)
            self.bias.zero_()

    def forward(self, blocks: Tensor) -> Tensor:
        """Return the states (B, N, HW, D) of (B, N, HW, D)."""
        kept = self.dropout(torch.ones_like(blocks)) if self.training else None
        of_input = torch.einsum("bncd,ged->gbnce", blocks, self.weight[..., : self.width])
        of_input = of_input + self.bias[:, None, None, None]
        update, reset, new = self.weight[..., self.width :]
        state, states = torch.zeros_like(blocks[:, 0]), []
        for step in range(blocks.shape[1]):
            share = (of_input[0, :, step] + F.linear(state, update)).sigmoid()
            past = (of_input[1, :, step] + F.linear(state, reset)).sigmoid() * state
            candidate = (of_input[2, :, step] + F.linear(past, new)).tanh()
            state = (1 - share) * state + share * candidate
            if kept is not None:
                state = state * kept[:, step]
            states.append(state)
        return torch.stack(states, dim=1)


class CellAttention(nn.Module):
    """Eq. 2: p = softmax(α / τ) over the cells, with α from all of them.

    α: Linear(D, 32), ReLU, Linear(32, 32) of every cell; all cells in a row: Linear(32 HW, HW), ReLU, Linear(HW, HW).

    Args:
        width: D.
        num_cells: HW.
        temperature: τ.
    """

    def __init__(self, width: int, num_cells: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        inner = ATTENTION_DIM
        self.of_cell = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, inner))
        self.of_all = nn.Sequential(nn.Linear(inner * num_cells, num_cells), nn.ReLU(), nn.Linear(num_cells, num_cells))

    def forward(self, states: Tensor) -> Tensor:
        """Return the weights (…, HW) of the cells of (…, HW, D)."""
        scores: Tensor = self.of_all(self.of_cell(states).flatten(-2))
        return (scores / self.temperature).softmax(-1)


class UniformAttention(nn.Module):
    """Every cell weighs the same."""

    def forward(self, states: Tensor) -> Tensor:
        """Return the weights (…, HW) of the cells of (…, HW, D)."""
        return torch.full_like(states[..., 0], 1 / states.shape[-2])


def weighted(states: Tensor, weights: Tensor) -> Tensor:
    """Return c = Σ p h over the cells: (…, HW, D) with (…, HW) to (…, D)."""
    return (weights.unsqueeze(-2) @ states).squeeze(-2)


def pairs_of(streams: Sequence[str]) -> list[tuple[str, str]]:
    """Return every unordered pair of streams, in their order."""
    return list(combinations(streams, 2))


def alignment(
    pairs: Sequence[tuple[Tensor, Tensor]],
    *,
    similarity: Literal["dot", "cosine"],
    reduction: Literal["mean", "sum"],
    symmetric_half: bool,
) -> Tensor:
    """Return Eq. 1 over both directions of every pair: −log softmax_j(c_i · c′_j) at j = i.

    Args:
        pairs: of each unordered pair of streams their contexts, both (n, D); row i of both shows the same moment.
        similarity: dot product as it is, or of contexts of length 1.
        reduction: over i; the paper prints a sum.
        symmetric_half: halve the sum of both directions, as the released code does.
    """
    terms = []
    for first, second in pairs:
        if similarity == "cosine":
            first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
        scores = first @ second.mT
        for direction in (scores, scores.mT):
            each = -direction.log_softmax(-1).diagonal()
            terms.append(each.mean() if reduction == "mean" else each.sum())
    total = add_up(terms)
    return total / 2 if symmetric_half else total
