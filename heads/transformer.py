"""Transformer layers whose weights can be stacked and whose dropout can be repeated.

They compute what `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` compute and name their weights alike, so that
state dicts of those load; but noise is given from outside (`Dropout`), and no path depends on what a batch holds.
Axes: (…, M, D), M tokens of width D; what stands before M is a batch for attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.heads.dropout import Dropout
from ifcar.heads.rows import masked_softmax

Activation = Literal["relu", "gelu"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class ZeroBiasLinear(nn.Linear):
    """A linear layer whose bias starts at zero, and its weight `scale` times as large as torch draws it."""

    def __init__(self, in_dim: int, out_dim: int, scale: float = 1.0) -> None:
        self.scale = scale  # first, since nn.Linear draws the weight as it is made
        super().__init__(in_dim, out_dim)

    def reset_parameters(self) -> None:
        """Draw the weight as `nn.Linear` does, scale it and set the bias to zero."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(self.scale)
        nn.init.zeros_(self.bias)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads.

        out = W_o concat_h( dropout(softmax(q_h k_hᵀ / √d)) v_h ) + b_o,   [q ; k ; v] = W_i x + b_i

    Source: Vaswani et al. 2017, §3.2; weights start as those of `nn.MultiheadAttention`, times `scale`.
    """

    def __init__(self, width: int, num_heads: int, scale: float = 1.0) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, scale
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = ZeroBiasLinear(width, width, scale)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of queries, keys and values (Xavier, uniform, scaled) and set their biases to zero."""
        nn.init.xavier_uniform_(self.in_proj_weight, gain=self.scale)
        nn.init.zeros_(self.in_proj_bias)

    def forward(self, tokens: Tensor, context: Tensor, mask: Tensor | None, dropout: nn.Module) -> Tensor:
        """Attend from tokens to their context.

        Args:
            tokens: (…, M, D).
            context: (…, L, D), finite everywhere.
            mask: broadcast to (…, heads, M, L), True where a token may look; None = everywhere.
            dropout: of the attention weights (…, heads, M, L).

        Returns:
            (…, M, D).
        """
        width = tokens.shape[-1]
        query = F.linear(tokens, self.in_proj_weight[:width], self.in_proj_bias[:width])
        both = F.linear(context, self.in_proj_weight[width:], self.in_proj_bias[width:])
        q, k, v = (self._by_head(value) for value in (query, *both.chunk(2, -1)))
        scores = q @ k.transpose(-1, -2) * (width // self.num_heads) ** -0.5
        weights = scores.softmax(-1) if mask is None else masked_softmax(scores, mask)
        gathered = (dropout(weights) @ v).transpose(-2, -3).flatten(-2)
        out: Tensor = self.out_proj(gathered)
        return out

    def _by_head(self, values: Tensor) -> Tensor:
        """Split (…, M, D) into (…, heads, M, D/heads)."""
        return values.view(*values.shape[:-1], self.num_heads, -1).transpose(-2, -3)


class EncoderLayer(nn.Module):
    """Self-attention, then two linear layers, each added to its input and normalised after that (post-norm).

    Source: Vaswani et al. 2017, §3.1; as `nn.TransformerEncoderLayer`.

    Args:
        shape: one clip's tokens without their width: (M,), or (T, M) for tokens that attend within each of T frames.
        width: D, a multiple of `num_heads`; the hidden layer has 4 D.
        num_heads: of the attention.
        dropout: of attention weights, of both results and of the hidden layer.
        activation: of the hidden layer.
        attention_scale: of the attention's initial weights.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        num_heads: int,
        dropout: float,
        activation: Activation,
        attention_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.self_attn = MultiHeadAttention(width, num_heads, attention_scale)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_dropout = attention_dropout(dropout, shape, num_heads, shape[-1])
        self.dropout, self.dropout1, self.dropout2 = (
            Dropout(dropout, (*shape, size)) for size in (4 * width, width, width)
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens (B, *shape, D) to the same shape; mask as in `MultiHeadAttention`."""
        attended = self.self_attn(tokens, tokens, mask, self.attention_dropout)
        tokens = self.norm1(tokens + self.dropout1(attended))
        hidden = self.dropout(ACTIVATIONS[self.activation](self.linear1(tokens)))
        out: Tensor = self.norm2(tokens + self.dropout2(self.linear2(hidden)))
        return out


class Encoder(nn.Module):
    """Encoder layers in a row."""

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, ...],
        width: int,
        num_heads: int,
        dropout: float,
        activation: Activation,
        attention_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(shape, width, num_heads, dropout, activation, attention_scale) for _ in range(num_layers)
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens (B, *shape, D) to the same shape."""
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return tokens


def attention_dropout(p: float, shape: tuple[int, ...], num_heads: int, num_context: int) -> Dropout:
    """Return the dropout of the attention weights of tokens of a shape (…, M) that look at `num_context` others."""
    return Dropout(p, (*shape[:-1], num_heads, shape[-1], num_context))


def causal_mask(num_tokens: int, device: torch.device) -> Tensor:
    """Return (M, M), True where a token may look: at itself and those before it."""
    steps = torch.arange(num_tokens, device=device)
    return steps.unsqueeze(1) >= steps
