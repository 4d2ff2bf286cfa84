"""Proposal + AvgPool: the instances' average beside the whole frame, without a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head, require_fraction, require_widths
from ifcar.heads.dropout import Dropout
from ifcar.heads.frame import GlobalFeature
from ifcar.heads.joint import JointConfig, JointFrontEnd
from ifcar.heads.rows import masked_mean
from ifcar.heads.schedules import ANY, WANG_GUPTA, Schedules


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalAvgConfig:
    """Options of the proposal average.

    Args:
        joint: the front end. The paper's instances have appearance only, reduced to 512 by one linear layer.
        frame_dim: width to which the global feature is reduced.
        dropout: before the classifier.
    """

    joint: JointConfig = field(
        default_factory=lambda: JointConfig(streams="appearance", reduction_dim=0, dropout=0.0),
    )
    frame_dim: int = 512
    dropout: float = 0.3

    def __post_init__(self) -> None:
        require_widths(frame_dim=self.frame_dim)
        require_fraction(dropout=self.dropout)


@register_head
class ProposalAvg(Head):
    """Score a clip from the average of all its instances, concatenated with the global feature.

    Source: Wang and Gupta 2018, §6.1, Table 2a (Proposal+AvgPool).
    Differs: instances and frame are reduced by a linear layer each, where the paper's backbone ends in one for both.
    """

    name = "proposal-avg"
    source = "Wang and Gupta 2018, §6.1, Table 2a"
    formula = "logits = W [mean_{t,i} f_i^t ; W_g mean_t(frame_features_t)] + b"
    config_type = ProposalAvgConfig
    presets: ClassVar[Mapping[str, ProposalAvgConfig]] = {
        "paper": ProposalAvgConfig(),
        "small": ProposalAvgConfig(
            joint=JointConfig(streams="appearance", appearance_dim=64, layout_dim=64, reduction_dim=0, dropout=0.0),
            frame_dim=64,
        ),
    }
    schedules: ClassVar[Schedules] = {"wang-gupta": {ANY: WANG_GUPTA}, "paper": {"charades": WANG_GUPTA}}
    relational = False
    simple = True

    @classmethod
    def reads(cls, config: ProposalAvgConfig) -> tuple[str, ...]:
        """Return the arrays of the chosen streams and the global feature's."""
        return ("frame_features", *config.joint.reads())

    def __init__(self, config: ProposalAvgConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.joint = JointFrontEnd(config.joint, spec)
        self.frame = GlobalFeature(spec.channels, config.frame_dim, config.joint.input_norm)
        width = config.joint.joint_dim() + config.frame_dim
        self.dropout = Dropout(config.dropout, (width,))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: frame_features (B, T′, C); instance_features (B, T′, N, C, P, P), boxes (B, T, N, 4), categories
                (B, T, N), as the streams need them.

        Returns:
            logits (B, K); no auxiliary loss. Independent of slot order and of what empty slots hold.
        """
        joint = self.joint(batch)
        nodes = masked_mean(joint.features.flatten(1, 2), joint.instance_mask.flatten(1, 2), dim=1)  # (B, D)
        pooled = torch.cat([nodes, self.frame(batch)], dim=-1)
        return HeadOutput(logits=self.classifier(self.dropout(pooled)))
