"""CAF: layout and appearance attend to each other, layer by layer (Radevski et al. 2021).

Official code: github.com/gorjanradevski/revisiting-spatial-temporal-layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head
from ifcar.heads.layout_fusion import CrossFusion, CrossFusionConfig
from ifcar.heads.schedules import RADEVSKI
from ifcar.heads.stlt import HiddenLayer


@register_head
class CAF(Head):
    """Score a clip from its boxes and its feature map by cross attention fusion.

        L, A = layers of cross attention on both branches;   logits = W_2 LN(GELU(W_1 [L_last ; A_CLS]))

    Source: Radevski et al. 2021 (Revisiting spatio-temporal layouts for compositional action recognition), CAF.
    """

    name = "caf"
    source = "Radevski et al. 2021, CAF"
    formula = "L, A = CrossLayers(LayoutEnc(boxes), AppEnc(map)); logits = W₂ LN(GELU(W₁ [L_last ; A_CLS]))"
    config_type = CrossFusionConfig
    presets: ClassVar[Mapping[str, CrossFusionConfig]] = {
        "paper": CrossFusionConfig(),
        "released": CrossFusionConfig.released(),
        "small": CrossFusionConfig.small(),
    }
    schedules = RADEVSKI

    def __init__(self, config: CrossFusionConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        width = config.layout.hidden_dim
        self.fusion = CrossFusion(config, spec)
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
        _, _, layout, appearance = self.fusion(batch)
        both = torch.cat([layout, appearance], dim=-1)
        return HeadOutput(logits=self.classifier(self.hidden(both)))
