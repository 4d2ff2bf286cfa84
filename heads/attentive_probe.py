"""Attentive probe: transformer blocks on the feature map and one query that gathers from it (V-JEPA 2's evaluation).

Official code: github.com/facebookresearch/vjepa2.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import (
    Head,
    HeadOutput,
    InstanceBatch,
    register_head,
    require,
    require_fraction,
    require_widths,
    require_widths_or_off,
)
from ifcar.heads.rows import RowNorm
from ifcar.heads.schedules import VJEPA2_PROBE

INIT_STD = 0.02
ONCE_A_HEAD = ".*batching rule for aten::_scaled_dot_product_flash_attention_for_cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentiveProbeConfig:
    """Options of the probe; defaults are those of V-JEPA 2's evaluation.

    Args:
        blocks: all of them; the last one is the query's.
        num_heads: of every attention.
        hidden_dim: width C of the tokens, to which a linear layer maps the channels; 0 takes the channels themselves.
        input_norm: standardise each cached channel first, as in `JointConfig`.
        norm_eps: ε of LayerNorm; 1e-5 in Meta's probe, 1e-6 in transformers' pooler.
    """

    blocks: int = 4
    num_heads: int = 16
    hidden_dim: int = 0
    input_norm: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        require_widths(blocks=self.blocks, num_heads=self.num_heads)
        require_widths_or_off(hidden_dim=self.hidden_dim)
        require_fraction(norm_eps=self.norm_eps)


class TruncatedLinear(nn.Linear):
    """A linear layer that starts with truncated normal weights over `divisor` and no bias."""

    def __init__(self, in_dim: int, out_dim: int, divisor: float = 1.0) -> None:
        self.divisor = divisor
        super().__init__(in_dim, out_dim)

    def reset_parameters(self) -> None:
        """Draw the weights with a deviation of 0.02, divide them, and set the bias to zero."""
        with torch.no_grad():
            nn.init.trunc_normal_(self.weight, std=INIT_STD).div_(self.divisor)
            self.bias.zero_()


class Query(nn.Module):
    """The learned query (1, 1, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(1, 1, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw it from a truncated normal distribution with a deviation of 0.02."""
        nn.init.trunc_normal_(self.tokens, std=INIT_STD)

    def forward(self, num_clips: int) -> Tensor:
        """Return the query of each clip, (B, 1, C)."""
        return self.tokens.expand(num_clips, -1, -1)


class Attend(nn.Module):
    """LN before keys and values, attention with several heads, and LN and an MLP after it; what both kinds share."""

    def __init__(self, width: int, config: AttentiveProbeConfig, depth: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=config.norm_eps) for _ in range(2))
        self.fc1, self.fc2 = TruncatedLinear(width, 4 * width), TruncatedLinear(4 * width, width, (2 * depth) ** 0.5)

    def gather(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return softmax(q kᵀ / √d) v by head, (B, M, C), for (B, M, C) and twice (B, L, C)."""
        q, k, v = (x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for x in (query, key, value))
        with warnings.catch_warnings():  # stacked heads run this kernel one after the other, which costs no more
            warnings.filterwarnings("ignore", message=ONCE_A_HEAD)
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def after(self, tokens: Tensor) -> Tensor:
        """Return x + W_2 GELU(W_1 LN(x))."""
        out: Tensor = tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        return out


class SelfBlock(Attend):
    """x ← x + W MHA(LN x);  x ← x + MLP(LN x)."""

    def __init__(self, width: int, config: AttentiveProbeConfig, depth: int) -> None:
        super().__init__(width, config, depth)
        self.qkv = TruncatedLinear(width, 3 * width)
        self.proj = TruncatedLinear(width, width, (2 * depth) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, M, C) to (B, M, C)."""
        return self.after(tokens + self.proj(self.gather(*self.qkv(self.norm1(tokens)).chunk(3, -1))))


class CrossBlock(Attend):
    """q ← q + MHA(W_q q, LN x);  q ← q + MLP(LN q): no layer after the attention, and the query is not normalised."""

    def __init__(self, width: int, config: AttentiveProbeConfig, depth: int) -> None:
        super().__init__(width, config, depth)
        self.query, self.key_value = TruncatedLinear(width, width), TruncatedLinear(width, 2 * width)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        """Map the query (B, 1, C) and what it looks at (B, M, C) to (B, 1, C)."""
        return self.after(query + self.gather(self.query(query), *self.key_value(self.norm1(tokens)).chunk(2, -1)))


@register_head
class AttentiveProbe(Head):
    """Score a clip by what one learned query gathers from all positions of the feature map.

        x ← x + W MHA(LN x);  x ← x + MLP(LN x)      blocks − 1 times
        q ← q₀ + MHA(W_q q₀, LN x);  q ← q + MLP(LN q);  logits = W q + b

    Source: Assran et al. 2025 (V-JEPA 2), evaluation by an attentive probe; released code.
    """

    name = "attentive-probe"
    source = "Assran et al. 2025 (V-JEPA 2), attentive probe"
    formula = "x ← Blocks(x) (self-attention, pre-norm); q ← q₀ + MHA(W q₀, LN x); q ← q + MLP(LN q); logits = W q + b"
    config_type = AttentiveProbeConfig
    presets: ClassVar[Mapping[str, AttentiveProbeConfig]] = {
        "paper": AttentiveProbeConfig(),
        "small": AttentiveProbeConfig(blocks=2, num_heads=4, hidden_dim=128, input_norm=True),
    }
    relational = False
    schedules = VJEPA2_PROBE

    @classmethod
    def reads(cls, config: AttentiveProbeConfig) -> tuple[str, ...]:
        """Return the feature map."""
        return ("grid_features",)

    def __init__(self, config: AttentiveProbeConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        width = config.hidden_dim or spec.channels
        require(width % config.num_heads == 0, "num_heads", config.num_heads, f"a divisor of the width, {width}")
        self.input_norm = RowNorm(spec.channels, affine=False) if config.input_norm else nn.Identity()
        self.reduction = nn.Linear(spec.channels, width) if config.hidden_dim else nn.Identity()
        self.blocks = nn.ModuleList(SelfBlock(width, config, depth) for depth in range(1, config.blocks))
        self.query = Query(width)
        self.cross = CrossBlock(width, config, max(1, config.blocks - 1))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: grid_features (B, T′, C, H, W).

        Returns:
            logits (B, K); no auxiliary loss.
        """
        grid = batch.array("grid_features").to(self.query.tokens.dtype)
        tokens = self.reduction(self.input_norm(grid.permute(0, 1, 3, 4, 2).flatten(1, 3)))  # (B, T′·H·W, C)
        for block in self.blocks:
            tokens = block(tokens)
        return HeadOutput(logits=self.classifier(self.cross(self.query(len(tokens)), tokens).squeeze(1)))
