"""Ours-base: joint features averaged over instances, concatenated over time, classified by an MLP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head, require_widths
from ifcar.heads.joint import JointConfig, JointFrontEnd
from ifcar.heads.rows import RowLayers, linear_norm_relu, masked_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseConfig:
    """Options of the base head.

    Args:
        joint: the front end.
        hidden_dim: output width of the MLP's two layers; the paper leaves it open, its other MLPs have 512.
    """

    joint: JointConfig = field(default_factory=JointConfig)
    hidden_dim: int = 512

    def __post_init__(self) -> None:
        require_widths(hidden_dim=self.hidden_dim)


@register_head
class Base(Head):
    """Score a clip from its instances without any interaction between them.

    Source: Yan et al. 2020, §4.1 (Ours-base), Table 1.
    """

    name = "base"
    source = "Yan et al. 2020, §4.1, Table 1"
    formula = "logits = W MLP([mean_i f_i^1 ; … ; mean_i f_i^T′]) + b"
    config_type = BaseConfig
    presets: ClassVar[Mapping[str, BaseConfig]] = {
        "paper": BaseConfig(),
        "small": BaseConfig(joint=JointConfig(appearance_dim=64, layout_dim=64, reduction_dim=0), hidden_dim=64),
    }
    relational = False

    @classmethod
    def reads(cls, config: BaseConfig) -> tuple[str, ...]:
        """Return the arrays of the chosen streams."""
        return config.joint.reads()

    def __init__(self, config: BaseConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.joint = JointFrontEnd(config.joint, spec)
        width = config.joint.joint_dim() * spec.num_steps
        self.mlp = RowLayers(
            *linear_norm_relu(width, config.hidden_dim),
            *linear_norm_relu(config.hidden_dim, config.hidden_dim),
        )
        self.classifier = nn.Linear(config.hidden_dim, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: instance_features (B, T′, N, C, P, P), boxes (B, T, N, 4), categories (B, T, N), as the streams
                need them.

        Returns:
            logits (B, K); no auxiliary loss. Independent of slot order and of what empty slots hold.
        """
        joint = self.joint(batch)
        frames = masked_mean(joint.features, joint.instance_mask, dim=2)  # (B, T′, D)
        return HeadOutput(logits=self.classifier(self.mlp(frames.flatten(1))))
