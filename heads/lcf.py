"""LCF: layout and appearance encoded apart, their states concatenated (Radevski et al. 2021).

Official code: github.com/gorjanradevski/revisiting-spatial-temporal-layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head
from ifcar.heads.layout_fusion import FusionConfig
from ifcar.heads.layouts import LayoutEncoder
from ifcar.heads.schedules import RADEVSKI
from ifcar.heads.stlt import HiddenLayer


@register_head
class LCF(Head):
    """Score a clip from its boxes and its feature map by late concatenation fusion.

        logits = W_2 LN(GELU(W_1 [u ; v])),   u the layout branch's state of the clip, v the appearance branch's

    Source: Radevski et al. 2021 (Revisiting spatio-temporal layouts for compositional action recognition), LCF.
    """

    name = "lcf"
    source = "Radevski et al. 2021, LCF"
    formula = "logits = W₂ LN(GELU(W₁ [u ; v])); u = LayoutEnc(boxes)[last], v = AppEnc(map)[CLS]"
    config_type = FusionConfig
    presets: ClassVar[Mapping[str, FusionConfig]] = {
        "paper": FusionConfig(),
        "released": FusionConfig.released(),
        "small": FusionConfig.small(),
    }
    schedules = RADEVSKI

    def __init__(self, config: FusionConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        width = config.layout.hidden_dim
        self.layout = LayoutEncoder(config.layout, spec)
        self.appearance = config.appearance_encoder(spec)
        self.hidden = HiddenLayer(2 * width, width, config.layout.norm_eps)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: grid_features (B, T′, C, H, W), boxes (B, T, N, 4), categories (B, T, N) and what else the layout
                reads; empty slots may hold anything.

        Returns:
            logits (B, K); no auxiliary loss. Independent of slot order and of what empty slots hold.
        """
        both = torch.cat([self.layout(batch)[:, -1], self.appearance(batch)[:, 0]], dim=-1)
        return HeadOutput(logits=self.classifier(self.hidden(both)))
