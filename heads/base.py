"""Ours-base: joint features averaged over instances, concatenated over time, classified by an MLP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head, require_widths_or_off
from ifcar.heads.joint import JointConfig, JointFrontEnd
from ifcar.heads.rows import RowLayers, linear_norm_relu, masked_mean
from ifcar.heads.schedules import YAN_RELEASED


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseConfig:
    """Options of the base head.

    Args:
        joint: the front end.
        pool: what is concatenated over time: "steps", the mean over each step's instances (paper), or nothing: "nodes",
            the mean over the instances of all steps (the released code's `pool`).
        mlp: "norm", (Linear–BN–ReLU) × 2, or "relu", one Linear without bias and a ReLU (the released code's `pool_T`).
        hidden_dim: output width of the MLP's layers; the paper leaves it open, its other MLPs have 512. 0 leaves the
            MLP out (the released code's `pool`).
    """

    joint: JointConfig = field(default_factory=JointConfig)
    pool: Literal["steps", "nodes"] = "steps"
    mlp: Literal["norm", "relu"] = "norm"
    hidden_dim: int = 512

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths_or_off(hidden_dim=self.hidden_dim)


@register_head
class Base(Head):
    """Score a clip from its instances without any interaction between them.

    Source: Yan et al. 2020, §4.1 (Ours-base), Table 1.
    Differs: nothing. The released code has two forms, `pool_T` (preset released) and `pool` (preset released-pool),
    with empty slots in every mean and the MLP that `BaseConfig` names.
    """

    name = "base"
    source = "Yan et al. 2020, §4.1, Table 1"
    formula = "logits = W MLP([mean_i f_i^1 ; … ; mean_i f_i^T′]) + b"
    config_type = BaseConfig
    presets: ClassVar[Mapping[str, BaseConfig]] = {
        "paper": BaseConfig(),
        "released": BaseConfig(joint=JointConfig.released(), mlp="relu"),
        "released-pool": BaseConfig(joint=JointConfig.released(), pool="nodes", hidden_dim=0),
        "small": BaseConfig(joint=JointConfig(appearance_dim=64, layout_dim=64, reduction_dim=0), hidden_dim=64),
        "tuned": BaseConfig(joint=JointConfig.tuned(128), hidden_dim=128),
    }
    schedules = YAN_RELEASED
    relational = False
    simple = True

    def __init__(self, config: BaseConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.joint = JointFrontEnd(config.joint, spec)
        self.pool = config.pool
        width = config.joint.joint_dim() * (spec.num_steps if config.pool == "steps" else 1)
        hidden = config.hidden_dim
        self.mlp = RowLayers()
        if hidden and config.mlp == "norm":
            self.mlp.extend([*linear_norm_relu(width, hidden), *linear_norm_relu(hidden, hidden)])
        elif hidden:
            self.mlp.extend([nn.Linear(width, hidden, bias=False), nn.ReLU()])
        self.classifier = nn.Linear(hidden or width, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: instance_features (B, T′, N, C, P, P), boxes (B, T, N, 4), categories (B, T, N), as the streams
                need them.

        Returns:
            logits (B, K); no auxiliary loss. Independent of slot order and, with the paper's preset, of what empty
            slots hold.
        """
        joint = self.joint(batch)
        features, mask = joint.features, joint.instance_mask
        if self.pool == "steps":
            pooled = masked_mean(features, mask, dim=2).flatten(1)  # (B, T′·D)
        else:
            pooled = masked_mean(features.flatten(1, 2), mask.flatten(1, 2), dim=1)  # (B, D)
        return HeadOutput(logits=self.classifier(self.mlp(pooled)))
