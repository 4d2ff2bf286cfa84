"""STIN: spatial-temporal interaction of instances by averaged messages (Materzynska et al. 2020).

Official code: github.com/joaanna/something_else; on joint features: github.com/ruiyan1995/Interactive_Fusion_for_CAR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
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


@dataclass(frozen=True, kw_only=True, slots=True)
class STINConfig:
    """Options of STIN; defaults are those of Ours-STIN, on joint features (Yan et al. 2020, Table 2).

    Args:
        joint: the front end.
        hidden_dim: output width of all four layers of the interaction; the paper leaves it open, its other MLPs and
            the released code have 512.
        classifier_dim: width of the second of two Linear–ReLU layers before the classifier (the first is as wide as
            the interaction); 0 leaves both out, as the code of Yan et al. does. Original STIN: 512.
    """

    joint: JointConfig = field(default_factory=JointConfig)
    hidden_dim: int = 512
    classifier_dim: int = 0

    def __post_init__(self) -> None:
        require_widths(hidden_dim=self.hidden_dim)
        require_widths_or_off(classifier_dim=self.classifier_dim)

    @classmethod
    def released(cls) -> STINConfig:
        """Return the config that reproduces the original STIN's released code, with categories."""
        return cls(
            joint=JointConfig(streams="layout", layout_layers=0, mask_empty=False, scale_grad_by_freq=True),
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

    ψ_1 and ψ_2 are (Linear–BN–ReLU) × 2. Where an instance is absent for a step, s_i^t is zero.

    Source: Materzynska et al. 2020, spatial and temporal interaction; released code.
    """

    def __init__(self, width: int, num_steps: int, hidden_dim: int) -> None:
        super().__init__()
        self.spatial = RowLayers(*linear_norm_relu(2 * width, hidden_dim), *linear_norm_relu(hidden_dim, hidden_dim))
        self.temporal = RowLayers(
            *linear_norm_relu(num_steps * hidden_dim, hidden_dim), *linear_norm_relu(hidden_dim, hidden_dim)
        )

    def forward(self, joint: JointFeatures) -> Tensor:
        """Return (B, N, hidden_dim), zero for slots that are empty in every step."""
        f, mask = joint.features, joint.instance_mask
        slots = slot_mask(mask)
        pairs = torch.cat([f, message_from_others(f, mask)], dim=-1)  # (B, T′, N, 2D)
        spatial = keep_real(self.spatial(pairs, mask), mask)
        over_time = spatial.transpose(1, 2).flatten(2)  # (B, N, T′·hidden_dim)
        return keep_real(self.temporal(over_time, slots), slots)


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

    Source: Materzynska et al. 2020 (preset released); Yan et al. 2020, Table 2, Ours-STIN (preset paper).
    Differs: empty slots send no message and are not averaged; the released code counts all N slots.
    """

    name = "stin"
    source = "Materzynska et al. 2020; Yan et al. 2020, Table 2"
    formula = "s_i^t = ψ_1([f_i^t ; mean_{j≠i} f_j^t]); z_i = ψ_2(concat_t s_i^t); logits = W mean_i z_i + b"
    config_type = STINConfig
    presets: ClassVar[Mapping[str, STINConfig]] = {
        "paper": STINConfig(),
        "released": STINConfig.released(),
        "small": STINConfig(joint=JointConfig(appearance_dim=64, layout_dim=64, reduction_dim=0), hidden_dim=64),
    }

    @classmethod
    def reads(cls, config: STINConfig) -> tuple[str, ...]:
        """Return the arrays of the chosen streams."""
        return config.joint.reads()

    def __init__(self, config: STINConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.joint = JointFrontEnd(config.joint, spec)
        self.interaction = Interaction(config.joint.joint_dim(), spec.num_steps, config.hidden_dim)
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
