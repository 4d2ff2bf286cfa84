"""STIN: spatial-temporal interaction of instances by averaged messages (Materzynska et al. 2020).

Official code: github.com/joaanna/something_else; on joint features: github.com/ruiyan1995/Interactive_Fusion_for_CAR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.contract import (
    Head,
    HeadOutput,
    InstanceBatch,
    register_head,
    require_widths,
    require_widths_or_off,
)
from ifcar.heads.joint import JointConfig, JointFeatures, JointFrontEnd
from ifcar.heads.rows import RowLayers, keep_real, linear_norm_relu, masked_mean, slot_mask
from ifcar.heads.schedules import YAN_RELEASED

Fusion = Literal["mlp", "linear"]


@dataclass(frozen=True, kw_only=True, slots=True)
class STINConfig:
    """Options of STIN; defaults are those of Ours-STIN, on joint features (Yan et al. 2020, Table 2).

    Args:
        joint: the front end.
        fusion: what the interaction's two parts are: "mlp", (Linear–BN–ReLU) × 2, or "linear", one Linear without
            bias. Yan et al.'s released code: linear, as it calls the first layer of each MLP only.
        step_dim: width of s_i^t; 0 takes `hidden_dim`.
        hidden_dim: output width of all four layers of the interaction; the paper leaves it open, its other MLPs and
            the released code have 512.
        classifier_dim: width of the second of two Linear–ReLU layers before the classifier (the first is as wide as
            the interaction); 0 leaves both out, as the code of Yan et al. does. Original STIN: 512.
    """

    joint: JointConfig = field(default_factory=JointConfig)
    fusion: Fusion = "mlp"
    step_dim: int = 0
    hidden_dim: int = 512
    classifier_dim: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths(hidden_dim=self.hidden_dim)
        require_widths_or_off(step_dim=self.step_dim, classifier_dim=self.classifier_dim)

    @classmethod
    def released(cls, *, category: bool = True) -> STINConfig:
        """Return the config that reproduces the original STIN's released code, with categories or without."""
        return cls(
            joint=JointConfig(
                streams="layout", category=category, layout_layers=0, mask_empty=False, scale_grad_by_freq=True
            ),
            classifier_dim=512,
        )


def message_from_others(features: Tensor, mask: Tensor) -> Tensor:
    """Average the other instances of a step.

        m_i = (Σ_j f_j − f_i) / (n − 1),   n real instances; zero for one that is alone

    Args:
        features: (B, T′, N, D), zero where the mask is False.
        mask: (B, T′, N), True = real.

    Returns:
        (B, T′, N, D); undefined where the mask is False.
    """
    others = (mask.sum(2) - 1).clamp(min=1).to(features.dtype)
    return (features.sum(2, keepdim=True) - features) / others[..., None, None]


class Interaction(nn.Module):
    """Messages between the instances of each step, then each instance over time.

        s_i^t = ψ_1([f_i^t ; mean_{j≠i} f_j^t]);   z_i = ψ_2([s_i^1 ; … ; s_i^T′])

    ψ_1 and ψ_2 are (Linear–BN–ReLU) × 2, or one Linear each (`STINConfig.fusion`). Where an instance is
    absent for a step, s_i^t is zero.

    Source: Materzynska et al. 2020, spatial and temporal interaction; released code.
    """

    def __init__(
        self, width: int, num_steps: int, hidden_dim: int, *, step_dim: int = 0, fusion: Fusion = "mlp"
    ) -> None:
        super().__init__()
        step_dim = step_dim or hidden_dim
        self.spatial = fusion_layers(2 * width, step_dim, fusion)
        self.temporal = fusion_layers(num_steps * step_dim, hidden_dim, fusion)

    def forward(self, joint: JointFeatures) -> Tensor:
        """Return (B, N, hidden_dim), zero for slots that are empty in every step."""
        f, mask = joint.features, joint.instance_mask
        slots = slot_mask(mask)
        if joint.masked:
            pairs = torch.cat([f, message_from_others(f, mask)], dim=-1)  # (B, T′, N, 2D)
            spatial = keep_real(self.spatial(pairs, mask), mask)
        else:
            spatial = self._of_every_slot(f)
        over_time = spatial.transpose(1, 2).flatten(2)  # (B, N, T′·hidden_dim)
        return keep_real(self.temporal(over_time, slots), slots)

    def _of_every_slot(self, f: Tensor) -> Tensor:
        """Return ψ_1 (B, T′, N, step_dim) where all slots count, so that a step's message needs one product.

        A f_i + B (Σ_j f_j − f_i)/(N − 1) = (A − B/(N − 1)) f_i + B Σ_j f_j/(N − 1),   [A B] the first layer's weights
        """
        first, *others = self.spatial
        assert isinstance(first, nn.Linear)
        num_others = max(1, f.shape[2] - 1)
        own, other = first.weight.chunk(2, dim=1)
        message = F.linear(f.sum(2, keepdim=True) / num_others, other)
        return RowLayers(*others).each(F.linear(f, own - other / num_others) + message)


def fusion_layers(in_dim: int, out_dim: int, fusion: Fusion) -> RowLayers:
    """Return (Linear – BN – ReLU) × 2, or one Linear; none has a bias."""
    if fusion == "linear":
        return RowLayers(nn.Linear(in_dim, out_dim, bias=False))
    return RowLayers(*linear_norm_relu(in_dim, out_dim), *linear_norm_relu(out_dim, out_dim))


def mlp_and_classifier(in_dim: int, hidden_dim: int, out_dim: int, num_classes: int) -> tuple[nn.Sequential, nn.Linear]:
    """Return the original STIN's last layers: (Linear → ReLU) × 2, left out for `out_dim` 0, and the classifier."""
    if not out_dim:
        return nn.Sequential(), nn.Linear(in_dim, num_classes)
    mlp = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim), nn.ReLU())
    return mlp, nn.Linear(out_dim, num_classes)


@register_head
class STIN(Head):
    """Score a clip from instances that hear the average of the others at each step.

        s_i^t = ψ_1([f_i^t ; mean_{j≠i} f_j^t]);   z_i = ψ_2([s_i^1 ; … ; s_i^T′]);   logits = W mean_i z_i + b

    Source: Materzynska et al. 2020 (preset released; released-coordinates is its form without categories); Yan et al.
    2020, Table 2, Ours-STIN (preset paper; released-joint is their code).
    Differs: empty slots send no message and are not averaged; the released code counts all N slots.
    """

    name = "stin"
    source = "Materzynska et al. 2020; Yan et al. 2020, Table 2"
    formula = "s_i^t = ψ_1([f_i^t ; mean_{j≠i} f_j^t]); z_i = ψ_2(concat_t s_i^t); logits = W mean_i z_i + b"
    config_type = STINConfig
    presets: ClassVar[Mapping[str, STINConfig]] = {
        "paper": STINConfig(),
        "released": STINConfig.released(),
        "released-coordinates": STINConfig.released(category=False),
        "released-joint": STINConfig(joint=JointConfig.released(), fusion="linear"),
        "small": STINConfig(joint=JointConfig(appearance_dim=64, layout_dim=64, reduction_dim=0), hidden_dim=64),
        "tuned": STINConfig(joint=JointConfig.tuned(128), hidden_dim=128),
    }
    schedules = YAN_RELEASED

    def __init__(self, config: STINConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.joint = JointFrontEnd(config.joint, spec)
        self.interaction = Interaction(
            config.joint.joint_dim(),
            spec.num_steps,
            config.hidden_dim,
            step_dim=config.step_dim,
            fusion=config.fusion,
        )
        width = config.hidden_dim
        self.mlp, self.classifier = mlp_and_classifier(width, width, config.classifier_dim, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: instance_features (B, T′, N, C, P, P), boxes (B, T, N, 4), categories (B, T, N), as the streams
                need them; empty slots may hold anything.

        Returns:
            logits (B, K); no auxiliary loss. With the paper's preset, independent of slot order and of what empty
            slots hold.
        """
        joint = self.joint(batch)
        instances = self.interaction(joint)  # (B, N, hidden_dim)
        pooled = masked_mean(instances, slot_mask(joint.instance_mask), dim=1)
        return HeadOutput(logits=self.classifier(self.mlp(pooled)))
