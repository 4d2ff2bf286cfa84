"""STLT: a transformer over the boxes of each frame, then one over the frames (Radevski et al. 2021).

Official code: github.com/gorjanradevski/revisiting-spatial-temporal-layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head
from ifcar.heads.layouts import LayoutConfig, LayoutEncoder
from ifcar.heads.schedules import RADEVSKI


@dataclass(frozen=True, kw_only=True, slots=True)
class STLTConfig:
    """Options of STLT; defaults are the paper's and the released code's, which do not differ.

    Args:
        layout: the encoder.
    """

    layout: LayoutConfig = field(default_factory=LayoutConfig)


class HiddenLayer(nn.Module):
    """What stands before the last linear layer, LN(GELU(W_1 x + b_1))."""

    def __init__(self, in_dim: int, out_dim: int, eps: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_dim, out_dim)
        self.layer_norm = nn.LayerNorm(out_dim, eps=eps)

    def forward(self, state: Tensor) -> Tensor:
        """Map (B, in_dim) to (B, out_dim)."""
        out: Tensor = self.layer_norm(F.gelu(self.fc1(state)))
        return out


@register_head
class STLT(Head):
    """Score a clip from its boxes and their categories alone.

        f_t = SpatialEnc({LN(E[c] + W_b (x1, y1, x2, y2))}, with a CLS box)[CLS];  z = TemporalEnc(LN(f + P + E_type))
        logits = W_2 LN(GELU(W_1 z_last))

    Source: Radevski et al. 2021 (Revisiting spatio-temporal layouts for compositional action recognition), STLT.
    """

    name = "stlt"
    source = "Radevski et al. 2021, STLT"
    formula = "f_t = SpatialEnc(boxes_t)[CLS]; z = TemporalEnc(LN(f_t + P_t + type_t)); logits = W₂ LN(GELU(W₁ z_last))"
    config_type = STLTConfig
    presets: ClassVar[Mapping[str, STLTConfig]] = {
        "paper": STLTConfig(),
        "released": STLTConfig(),
        "small": STLTConfig(layout=LayoutConfig.small()),
        "tuned": STLTConfig(layout=LayoutConfig.tuned()),
    }
    schedules = RADEVSKI

    def __init__(self, config: STLTConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        width = config.layout.hidden_dim
        self.layout = LayoutEncoder(config.layout, spec)
        self.hidden = HiddenLayer(width, width, config.layout.norm_eps)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: boxes (B, T, N, 4), categories (B, T, N) and what else the layout reads; empty slots may hold
                anything.

        Returns:
            logits (B, K); no auxiliary loss. Independent of slot order and of what empty slots hold.
        """
        return HeadOutput(logits=self.classifier(self.hidden(self.layout(batch)[:, -1])))
