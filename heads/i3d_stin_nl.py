"""I3D + STIN + NL, trained jointly: the whole frame beside STIN + NL's instances (Materzynska et al. 2020).

Official code: github.com/joaanna/something_else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import (
    Head,
    HeadOutput,
    InstanceBatch,
    register_head,
    require,
    require_fraction,
    require_widths,
)
from ifcar.heads.dropout import Dropout
from ifcar.heads.frame import GlobalFeature
from ifcar.heads.joint import JointConfig, JointFrontEnd
from ifcar.heads.stin import mlp_and_classifier
from ifcar.heads.stin_nl import NonLocalInteraction


@dataclass(frozen=True, kw_only=True, slots=True)
class I3DSTINNLConfig:
    """Options of the joint model.

    Args:
        joint: the front end of the instances. The original has layout only, without further layers after its fusion.
        hidden_dim: as in `STINNLConfig`.
        blocks: as in `STINNLConfig`; 0 is I3D + STIN.
        key_dim: as in `STINNLConfig`.
        frame_dim: width to which the global feature is reduced.
        frame_relu: ReLU after that reduction. Released: none; the two features are concatenated as they are.
        dropout: of the global feature, 0.3 in Wang and Gupta 2018 §6, whose training of I3D both papers follow.
            Released: the layer is built and not used.
        classifier_dim: width of the second of two Linear–ReLU layers before the classifier.
    """

    joint: JointConfig = field(default_factory=lambda: JointConfig(streams="layout", layout_layers=0))
    hidden_dim: int = 512
    blocks: int = 3
    key_dim: int = 256
    frame_dim: int = 512
    frame_relu: bool = False
    dropout: float = 0.3
    classifier_dim: int = 512

    def __post_init__(self) -> None:
        require_widths(
            hidden_dim=self.hidden_dim,
            key_dim=self.key_dim,
            frame_dim=self.frame_dim,
            classifier_dim=self.classifier_dim,
        )
        require(self.blocks >= 0, "blocks", self.blocks, "0 (off) or a number of blocks")
        require_fraction(dropout=self.dropout)


@register_head
class I3DSTINNL(Head):
    """Score a clip from its global feature and STIN + NL's average instance, both trained at once.

        logits = W MLP([W_g mean_t(frame_features_t) + b_g ; mean_i z_i]) + b,   z_i as in stin-nl

    Source: Materzynska et al. 2020, I3D + STIN + NL; Yan et al. 2020, Table 2.
    Differs: here the backbone is frozen; empty slots are left out. Two models trained apart and averaged, (I3D,
    STIN + NL), are an ensemble of `i3d` and `stin-nl`.
    """

    name = "i3d-stin-nl"
    source = "Materzynska et al. 2020; Yan et al. 2020, Table 2"
    formula = "logits = W MLP([W_g mean_t(frame_features_t) + b_g ; mean_i z_i]) + b, z as in stin-nl"
    config_type = I3DSTINNLConfig
    presets: ClassVar[Mapping[str, I3DSTINNLConfig]] = {
        "paper": I3DSTINNLConfig(),
        "small": I3DSTINNLConfig(
            joint=JointConfig(streams="layout", appearance_dim=64, layout_dim=64, layout_layers=0, reduction_dim=0),
            hidden_dim=64,
            key_dim=32,
            frame_dim=64,
            classifier_dim=64,
        ),
    }

    @classmethod
    def reads(cls, config: I3DSTINNLConfig) -> tuple[str, ...]:
        """Return the arrays of the chosen streams and the global feature's."""
        return ("frame_features", *config.joint.reads())

    def __init__(self, config: I3DSTINNLConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.frame = nn.Sequential(
            GlobalFeature(spec.channels, config.frame_dim, config.joint.input_norm),
            nn.ReLU() if config.frame_relu else nn.Identity(),
            Dropout(config.dropout, (config.frame_dim,)),
        )
        self.joint = JointFrontEnd(config.joint, spec)
        self.trunk = NonLocalInteraction(
            config.joint.joint_dim(),
            spec.num_steps,
            config.hidden_dim,
            blocks=config.blocks,
            key_dim=config.key_dim,
            key_bias=False,
        )
        width = config.frame_dim + config.hidden_dim
        self.mlp, self.classifier = mlp_and_classifier(width, config.hidden_dim, config.classifier_dim, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: frame_features (B, T′, C), boxes (B, T, N, 4), categories (B, T, N); instance_features
                (B, T′, N, C, P, P) where the streams need them; empty slots may hold anything.

        Returns:
            logits (B, K); no auxiliary loss. Independent of slot order and of what empty slots hold.
        """
        clip = torch.cat([self.frame(batch), self.trunk(self.joint(batch))], dim=-1)
        return HeadOutput(logits=self.classifier(self.mlp(clip)))
