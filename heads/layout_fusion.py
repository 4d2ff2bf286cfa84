"""How Radevski et al. 2021 fuse layout and appearance: options, both branches and layers of cross attention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.appearance import AppearanceEncoder
from ifcar.heads.contract import InstanceBatch, require_widths
from ifcar.heads.dropout import Dropout
from ifcar.heads.layouts import LayoutConfig, LayoutEncoder
from ifcar.heads.transformer import MultiHeadAttention, attention_dropout, causal_mask

FeedForward = Literal["mlp", "attention"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """Options of the fusing heads; defaults are the paper's. Widths, heads and dropout are the layout branch's.

    Args:
        layout: the layout branch.
        appearance_layers: of the encoder over the feature map.
        input_norm: standardise each cached channel first, as in `JointConfig`. Released: no, its backbone is trained.
    """

    layout: LayoutConfig = field(default_factory=LayoutConfig)
    appearance_layers: int = 4
    input_norm: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths(appearance_layers=self.appearance_layers)

    @classmethod
    def released(cls) -> Self:
        """Return the config that reproduces the authors' released code on a given feature map."""
        return cls(input_norm=False)

    @classmethod
    def small(cls) -> Self:
        """Return a narrow config for laptops."""
        return cls(layout=LayoutConfig.small(), appearance_layers=1)

    def reads(self) -> tuple[str, ...]:
        """Return the arrays of both branches."""
        return ("grid_features", *self.layout.reads())

    def appearance_encoder(self, spec: CacheSpec) -> AppearanceEncoder:
        """Build the appearance branch."""
        return AppearanceEncoder(
            spec,
            width=self.layout.hidden_dim,
            num_heads=self.layout.num_heads,
            num_layers=self.appearance_layers,
            dropout=self.layout.dropout,
            input_norm=self.input_norm,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossFusionConfig(FusionConfig):
    """Options of the heads that fuse by cross attention.

    Args:
        fusion_layers: layers of cross attention.
        appearance_ffn: what stands in each layer where the layout has its feed-forward part: "mlp", the same for the
            appearance (paper), or "attention", a second self-attention (released code).
    """

    fusion_layers: int = 4
    appearance_ffn: FeedForward = "mlp"

    def __post_init__(self) -> None:
        FusionConfig.__post_init__(self)
        require_widths(fusion_layers=self.fusion_layers)

    @classmethod
    def released(cls) -> Self:
        """Return the config that reproduces the authors' released code on a given feature map."""
        return cls(input_norm=False, appearance_ffn="attention")

    @classmethod
    def small(cls) -> Self:
        """Return a narrow config for laptops."""
        return cls(layout=LayoutConfig.small(), appearance_layers=1, fusion_layers=1)


class Attended(nn.Module):
    """LN(x + dropout(attention))."""

    def __init__(self, config: LayoutConfig) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(config.hidden_dim, config.num_heads)
        self.ln = nn.LayerNorm(config.hidden_dim, eps=config.norm_eps)

    def forward(self, tokens: Tensor, context: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        """Attend from (B, M, H) to (B, L, H): (B, M, H); mask as in `MultiHeadAttention`."""
        out: Tensor = self.ln(tokens + drop.result(self.attn(tokens, context, mask, drop.weights)))
        return out


class Drop(nn.Module):
    """The dropout of one use of an attention: of its weights and of its result."""

    def __init__(self, config: LayoutConfig, num_tokens: int, num_context: int) -> None:
        super().__init__()
        self.weights = attention_dropout(config.dropout, (num_tokens,), config.num_heads, num_context)
        self.result = Dropout(config.dropout, (num_tokens, config.hidden_dim))


class FeedForwardLayer(nn.Module):
    """LN(x + dropout(W_2 GELU(W_1 x)))."""

    def __init__(self, config: LayoutConfig, num_tokens: int) -> None:
        super().__init__()
        width = config.hidden_dim
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(config.dropout, (num_tokens, width))
        self.ln = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, M, H) to (B, M, H)."""
        out: Tensor = self.ln(tokens + self.dropout(self.linear2(F.gelu(self.linear1(tokens)))))
        return out


class CrossModalLayer(nn.Module):
    """One layer of fusion; the same cross attention X goes both ways, and both read the layer's inputs.

        L′ = LN(L + X(L, A));   L″ = LN(L′ + SA_L(L′));   L ← LN(L″ + FFN_L(L″))
        A′ = LN(A + X(A, L));   A″ = LN(A′ + SA_A(A′));   A ← LN(A″ + FFN_A(A″))

    The layout looks at itself causally. In the released code FFN_A is a further self-attention.

    Source: Radevski et al. 2021, cross attention fusion; released code.
    """

    def __init__(self, config: CrossFusionConfig, num_frames: int, num_positions: int) -> None:
        super().__init__()
        layout, frames, positions = config.layout, num_frames, num_positions
        self.cross_attn = Attended(layout)
        self.layout_attn, self.appearance_attn = Attended(layout), Attended(layout)
        self.layout_ffn = FeedForwardLayer(layout, frames)
        self.appearance_ffn: Attended | FeedForwardLayer
        if config.appearance_ffn == "attention":
            self.appearance_ffn = Attended(layout)
            self.appearance_ffn_drop = Drop(layout, positions, positions)
        else:
            self.appearance_ffn = FeedForwardLayer(layout, positions)
        self.layout_cross_drop, self.layout_drop = Drop(layout, frames, positions), Drop(layout, frames, frames)
        self.appearance_cross_drop = Drop(layout, positions, frames)
        self.appearance_drop = Drop(layout, positions, positions)

    def forward(self, layout: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        """Map layout (B, T + 1, H) and appearance (B, M, H) to the same shapes."""
        causal = causal_mask(layout.shape[1], layout.device)
        l_cross = self.cross_attn(layout, appearance, None, self.layout_cross_drop)
        a_cross = self.cross_attn(appearance, layout, None, self.appearance_cross_drop)
        l_self = self.layout_attn(l_cross, l_cross, causal, self.layout_drop)
        a_self = self.appearance_attn(a_cross, a_cross, None, self.appearance_drop)
        if isinstance(self.appearance_ffn, Attended):
            return self.layout_ffn(l_self), self.appearance_ffn(a_self, a_self, None, self.appearance_ffn_drop)
        return self.layout_ffn(l_self), self.appearance_ffn(a_self)


class CrossFusion(nn.Module):
    """Both branches and the layers that fuse them."""

    def __init__(self, config: CrossFusionConfig, spec: CacheSpec) -> None:
        super().__init__()
        self.layout = LayoutEncoder(config.layout, spec)
        self.appearance = config.appearance_encoder(spec)
        num_frames, num_positions = self.layout.num_frames, self.appearance.num_tokens + 1
        self.layers = nn.ModuleList(
            CrossModalLayer(config, num_frames, num_positions) for _ in range(config.fusion_layers)
        )

    def forward(self, batch: InstanceBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return u and v, the clip's states of both branches before the fusion, and both after it, each (B, H)."""
        layout, appearance = self.layout(batch), self.appearance(batch)
        before = layout[:, -1], appearance[:, 0]
        for layer in self.layers:
            layout, appearance = layer(layout, appearance)
        return *before, layout[:, -1], appearance[:, 0]
