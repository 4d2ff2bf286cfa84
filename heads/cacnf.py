"""CACNF: cross attention fusion beside a classifier of each branch, averaged (Radevski et al. 2021).

Official code: github.com/gorjanradevski/revisiting-spatial-temporal-layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head
from ifcar.heads.layout_fusion import CrossFusion, CrossFusionConfig
from ifcar.heads.schedules import RADEVSKI
from ifcar.heads.stlt import HiddenLayer


class CentralClassifier(nn.Module):
    """The last linear layers of layout, appearance and fusion, and the mean of their logits."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.layout, self.appearance, self.fusion = (nn.Linear(width, num_classes) for _ in range(3))

    def forward(self, states: Tensor) -> Tensor:
        """Map the three hidden states (B, 3, H) to four outputs (B, 4, K), the mean of the others last."""
        layout, appearance, fusion = states.unbind(1)
        three = torch.stack([self.layout(layout), self.appearance(appearance), self.fusion(fusion)], dim=1)
        return torch.cat([three, three.mean(1, keepdim=True)], dim=1)


@register_head
class CACNF(Head):
    """Score a clip by three classifiers, of each branch before the fusion and of both after it.

        logits = (stlt(u) + app(v) + caf([L_last ; A_CLS])) / 3;   each of the three, and their mean, is trained

    Source: Radevski et al. 2021 (Revisiting spatio-temporal layouts for compositional action recognition), CACNF.
    """

    name = "cacnf"
    source = "Radevski et al. 2021, CACNF"
    formula = "logits = (stlt(u) + app(v) + caf([L_last ; A_CLS])) / 3, each W₂ LN(GELU(W₁ ·)) and trained by itself"
    config_type = CrossFusionConfig
    presets: ClassVar[Mapping[str, CrossFusionConfig]] = {
        "paper": CrossFusionConfig(),
        "released": CrossFusionConfig.released(),
        "small": CrossFusionConfig.small(),
    }
    schedules = RADEVSKI

    def __init__(self, config: CrossFusionConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        width, eps = config.layout.hidden_dim, config.layout.norm_eps
        self.fusion = CrossFusion(config, spec)
        self.layout_hidden, self.appearance_hidden = (HiddenLayer(width, width, eps) for _ in range(2))
        self.fusion_hidden = HiddenLayer(2 * width, width, eps)
        self.classifier = CentralClassifier(width, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: grid_features (B, T′, C, H, W), boxes (B, T, N, 4), categories (B, T, N) and what else the layout
                reads; empty slots may hold anything.

        Returns:
            logits (B, K), the mean of the outputs (B, 4, K): layout, appearance, fusion and the mean of these three; no
            auxiliary loss. Independent of slot order and of what empty slots hold.
        """
        u, v, layout, appearance = self.fusion(batch)
        fused = self.fusion_hidden(torch.cat([layout, appearance], dim=-1))
        outputs = self.classifier(torch.stack([self.layout_hidden(u), self.appearance_hidden(v), fused], dim=1))
        return HeadOutput(logits=outputs.mean(1), outputs=outputs)
