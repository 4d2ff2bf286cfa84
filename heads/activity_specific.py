"""Activity-specific features: one descriptor for each activity, and the activities that go with it (Zhang et al.)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.activities import ActivityScores
from ifcar.heads.contract import (
    Head,
    HeadOutput,
    InstanceBatch,
    register_head,
    require,
    require_fraction,
    require_widths,
)
from ifcar.heads.observations import Observations, Query, channel_scale
from ifcar.heads.positions import Features, grouped_channels, read_arrays, read_positions
from ifcar.heads.rows import RowNorm, masked_mean
from ifcar.heads.schedules import ZHANG


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivitySpecificConfig:
    """Options; defaults are the paper's (§3.4, §3.7, Table 3).

    Args:
        features: "grid", the whole feature map, or "instances", the bins of the RoIs (the paper on AVA).
        num_observations: K.
        num_groups: n, groups of channels of the linear maps of Eq. 13. 1, 8, 32 and 64 in Table 3a.
        descriptor_dim: C′.
        query: which feature asks in Eq. 12: "last", the last position (the paper), or "mean", the mean of all. A RoI
            is in no order among the others of its step, so that "instances" takes "mean".
        specific: descriptors from attention. Without, each is a grouped linear map of the one globally averaged
            feature ("no activity-specific" in Table 3c, which the paper does not spell out).
        correlation: the second output, from correlated descriptors ("no activity correlation" in Table 3c).
        own_scores: a row of W^φ and W^θ for each activity. The paper's parameter counts leave room for one row only.
        input_norm: standardise each cached channel, as in `JointConfig`.
        dropout: before each output; the paper's 0.5 "after the dense layer".
    """

    features: Features = "grid"
    num_observations: int = 64
    num_groups: int = 32
    descriptor_dim: int = 128
    query: Query = "last"
    specific: bool = True
    correlation: bool = True
    own_scores: bool = False
    input_norm: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.features == "grid" or self.query == "mean" or not self.specific,
            "query",
            self.query,
            "mean with features=instances, which are in no order",
        )
        require_widths(
            num_observations=self.num_observations, num_groups=self.num_groups, descriptor_dim=self.descriptor_dim
        )
        divides = self.descriptor_dim % self.num_groups == 0
        require(divides, "descriptor_dim", self.descriptor_dim, f"a multiple of num_groups, {self.num_groups}")
        require_fraction(dropout=self.dropout)


@register_head
class ActivitySpecific(Head):
    """Score each activity from its own descriptor, and from those of the activities that go with it.

        Attn_O,k = softmax_p(g_k^β(f_last)ᵀ g_k^γ(f_p)),   Obs_k = Σ_p Attn_O,kp g_k^α(f_p)
        F_A = Attn_A Obs,   F_AC = (Attn_C + Mask) F_A
        F_OA = sigmoid(W^φ F_A + b^φ),   F_OC = sigmoid(W^θ F_AC + b^θ)

    Source: Zhang, Li and Marsic (Multi-label activity recognition using activity-specific features and activity
    correlations), §3, Eq. 1–13. How Attn_A and Attn_C are read stands at `Combination` and `Correlation`.
    Differs: each of the two outputs (Eq. 11) is trained on the labels, and the mean of their logits is the head's
    score; the paper does not say how two outputs become one. A bias for each activity.
    """

    name = "activity-specific"
    source = "Zhang et al., §3, Eq. 1–13, Table 3"
    formula = "F_A = Attn_A [Σ_p Attn_O,kp g_k(f_p)]_k; outputs W_1 F_A + b_1 and W_2 (Attn_C + Mask) F_A + b_2"
    config_type = ActivitySpecificConfig
    presets: ClassVar[Mapping[str, ActivitySpecificConfig]] = {
        "paper": ActivitySpecificConfig(),
        "instances": ActivitySpecificConfig(features="instances", query="mean"),
        "small": ActivitySpecificConfig(num_observations=16, descriptor_dim=64),
    }
    schedules = ZHANG
    relational = False
    classifier: ActivityScores

    @classmethod
    def reads(cls, config: ActivitySpecificConfig) -> tuple[str, ...]:
        """Return the array of features, and what says which of them are real."""
        return read_arrays(config.features)

    def __init__(self, config: ActivitySpecificConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.config = config
        channels = grouped_channels(spec, config.num_groups)
        self.observations: Observations | None = None
        self.input_norm: RowNorm | None = None
        if config.specific:
            self.observations = Observations(
                config.num_observations,
                config.num_groups,
                channels,
                config.descriptor_dim,
                config.query,
                config.input_norm,
            )
        elif config.input_norm:
            self.input_norm = RowNorm(channels, affine=False)
        self.classifier = ActivityScores(
            num_classes,
            config.descriptor_dim,
            shared=None if config.specific else (channels, config.num_groups),
            correlation=config.correlation,
            own_scores=config.own_scores,
            dropout=config.dropout,
        )

    def learn_labels(self, labels: Tensor) -> None:
        """Count which activities go together (Eq. 8)."""
        if self.classifier.correlation is not None:
            self.classifier.correlation.count(labels)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: grid_features (B, T′, C, H, W); or instance_features (B, T′, N, C, P, P) and categories (B, T, N),
                whose empty slots may hold anything.

        Returns:
            logits (B, K) and outputs (B, O, K), whose mean they are; no auxiliary loss.
        """
        dtype = self.classifier.score.weight.dtype
        positions, mask = read_positions(self.config.features, batch, dtype)
        if self.observations is not None:
            features, _ = self.observations(positions, mask)
        else:
            mean, inverse = channel_scale(self.input_norm, positions, mask)
            real = mask.any(1, keepdim=True).to(dtype)
            features = (masked_mean(positions, mask, dim=1) - mean) * inverse * real
        outputs = self.classifier(features)
        return HeadOutput(logits=outputs.mean(1), outputs=outputs)

    @torch.no_grad()
    def explain(self, batch: InstanceBatch) -> Mapping[str, Tensor]:
        """Return "activity_maps", see `activity_maps`, where descriptors come from attention."""
        return {} if self.observations is None else {"activity_maps": self.activity_maps(batch)}

    @torch.no_grad()
    def activity_maps(self, batch: InstanceBatch) -> Tensor:
        """Return where each activity's descriptor comes from, Attn_A Attn_O.

        Args:
            batch: as for `forward`.

        Returns:
            (B, K, P), each map summing to 1; position p = (t · H + y) · W + x of the feature map, or
            ((t · N + slot) · P + y) · P + x of RoIs.

        Source: Zhang et al., §7.
        """
        assert self.observations is not None and self.classifier.combination is not None
        positions, mask = read_positions(self.config.features, batch, self.classifier.score.weight.dtype)
        observations, attention = self.observations(positions, mask)
        _, by_activity = self.classifier.combination(observations)
        maps: Tensor = by_activity @ attention
        return maps
