"""Two self-attention layers on the feature map, averaged: what activity-specific features are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.contract import (
    Head,
    HeadOutput,
    InstanceBatch,
    register_head,
    require,
    require_fraction,
    require_widths,
)
from ifcar.heads.dropout import Dropout
from ifcar.heads.observations import GroupedLinear
from ifcar.heads.positions import Features, grouped_channels, read_arrays, read_positions
from ifcar.heads.rows import RowNorm, keep_real, masked_mean, masked_softmax
from ifcar.heads.schedules import ZHANG


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoStageTransformerConfig:
    """Options; widths as those of `activity-specific`.

    Args:
        features: "grid", the whole feature map, or "instances", the bins of the RoIs.
        num_groups: groups of channels of the linear maps.
        key_dim: width in which positions are compared.
        input_norm: standardise each cached channel, as in `JointConfig`.
        dropout: before the classifier.
    """

    features: Features = "grid"
    num_groups: int = 32
    key_dim: int = 128
    input_norm: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths(num_groups=self.num_groups, key_dim=self.key_dim)
        divides = self.key_dim % self.num_groups == 0
        require(divides, "key_dim", self.key_dim, f"a multiple of num_groups, {self.num_groups}")
        require_fraction(dropout=self.dropout)


class SelfAttention(nn.Module):
    """Each position becomes an average of all, f_p ← Σ_q softmax_q( g^β(f_p)ᵀ g^γ(f_q) ) f_q."""

    def __init__(self, width: int, num_groups: int, key_dim: int) -> None:
        super().__init__()
        self.beta, self.gamma = (GroupedLinear(1, num_groups, width, key_dim) for _ in range(2))

    def forward(self, positions: Tensor, mask: Tensor) -> Tensor:
        """Map (B, P, C) with mask (B, P) to (B, P, C)."""
        rows = positions.flatten(0, 1)
        asked, keys = (g(rows).view(*mask.shape, -1) for g in (self.beta, self.gamma))
        attention = masked_softmax(asked @ keys.transpose(1, 2), mask.unsqueeze(1))
        return keep_real(attention.to(positions.dtype) @ positions, mask)


@register_head
class TwoStageTransformer(Head):
    """Score a clip by a linear layer on its positions' average, after two self-attention layers.

    Source: Zhang et al., §4.3 and Table 3e; its attention is that of Eq. 12, of every position instead of the last.
    """

    name = "two-stage-transformer"
    source = "Zhang et al., §4.3, Table 3e"
    formula = "F ← softmax(g_β(F)ᵀ g_γ(F)) F, twice; logits = W mean_p f_p + b"
    config_type = TwoStageTransformerConfig
    presets: ClassVar[Mapping[str, TwoStageTransformerConfig]] = {
        "paper": TwoStageTransformerConfig(),
        "small": TwoStageTransformerConfig(key_dim=64),
    }
    schedules = ZHANG
    relational = False
    classifier: nn.Linear

    @classmethod
    def reads(cls, config: TwoStageTransformerConfig) -> tuple[str, ...]:
        """Return the array of features, and what says which of them are real."""
        return read_arrays(config.features)

    def __init__(self, config: TwoStageTransformerConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.config = config
        channels = grouped_channels(spec, config.num_groups)
        self.input_norm = RowNorm(channels, affine=False) if config.input_norm else None
        self.first = SelfAttention(channels, config.num_groups, config.key_dim)
        self.second = SelfAttention(channels, config.num_groups, config.key_dim)
        self.dropout = Dropout(config.dropout, (channels,))
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: grid_features (B, T′, C, H, W); or instance_features (B, T′, N, C, P, P) and categories (B, T, N),
                whose empty slots may hold anything.

        Returns:
            logits (B, K); no auxiliary loss.
        """
        positions, mask = read_positions(self.config.features, batch, self.classifier.weight.dtype)
        if self.input_norm is not None:
            positions = keep_real(self.input_norm(positions, mask), mask)
        attended = self.second(self.first(positions, mask), mask)
        return HeadOutput(logits=self.classifier(self.dropout(masked_mean(attended, mask, dim=1))))
