"""The frame-level I3D baseline: no instances, only the globally pooled clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head, require_fraction
from ifcar.heads.dropout import Dropout
from ifcar.heads.rows import RowNorm
from ifcar.heads.schedules import ZHANG_CHARADES, Schedules


@dataclass(frozen=True, kw_only=True, slots=True)
class I3DConfig:
    """Options of the baseline.

    Args:
        input_norm: standardise each cached channel, as in `JointConfig`.
        dropout: before the classifier, 0.3 in Wang and Gupta 2018 §6, whose training of I3D the paper follows.
    """

    input_norm: bool = True
    dropout: float = 0.3

    def __post_init__(self) -> None:
        require_fraction(dropout=self.dropout)


@register_head
class I3D(Head):
    """Score a clip by a linear layer on the average of the last feature map over space and time.

    Source: Yan et al. 2020, §4.1 (I3D baseline of Table 1). Differs: here the backbone is frozen.
    """

    name = "i3d"
    source = "Yan et al. 2020, §4.1, Table 1"
    formula = "logits = W mean_t(frame_features_t) + b"
    config_type = I3DConfig
    presets: ClassVar[Mapping[str, I3DConfig]] = {"paper": I3DConfig(), "small": I3DConfig()}
    schedules: ClassVar[Schedules] = {"zhang": {"charades": ZHANG_CHARADES}}
    relational = False
    frame_level = True
    simple = True
    classifier: nn.Linear

    @classmethod
    def reads(cls, config: I3DConfig) -> tuple[str, ...]:
        """Return the one array this head reads."""
        return ("frame_features",)

    def __init__(self, config: I3DConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.input_norm = RowNorm(spec.channels, affine=False) if config.input_norm else nn.Identity()
        self.dropout = Dropout(config.dropout, (spec.channels,))
        self.classifier = nn.Linear(spec.channels, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: frame_features (B, T′, C).

        Returns:
            logits (B, K); no auxiliary loss.
        """
        pooled = batch.array("frame_features").to(self.classifier.weight.dtype).mean(dim=1)
        return HeadOutput(logits=self.classifier(self.dropout(self.input_norm(pooled))))
