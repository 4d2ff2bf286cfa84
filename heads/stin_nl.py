"""STIN + NL: STIN whose instances attend to each other before they are averaged (Materzynska et al. 2020).

Official code: github.com/joaanna/something_else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.attention import Attention
from ifcar.heads.contract import (
    Head,
    HeadOutput,
    InstanceBatch,
    register_head,
    require_widths,
    require_widths_or_off,
)
from ifcar.heads.joint import JointConfig, JointFeatures, JointFrontEnd
from ifcar.heads.rows import keep_real, linear_norm_relu, masked_mean, slot_mask
from ifcar.heads.standardise import EPS
from ifcar.heads.stin import Interaction, mlp_and_classifier


@dataclass(frozen=True, kw_only=True, slots=True)
class STINNLConfig:
    """Options of STIN + NL; defaults are the original's, which Yan et al. 2020 (Table 2) compare with.

    Args:
        joint: the front end. The original has layout only, without further layers after its fusion.
        hidden_dim: output width of the interaction's layers and of the blocks.
        blocks: non-local blocks in a row.
        key_dim: width of their θ, φ and g; half of `hidden_dim`, as in the released code.
        key_bias: a bias in φ, which the softmax cancels. Released: yes.
        classifier_dim: as in `STINConfig`.
    """

    joint: JointConfig = field(default_factory=lambda: JointConfig(streams="layout", layout_layers=0))
    hidden_dim: int = 512
    blocks: int = 3
    key_dim: int = 256
    key_bias: bool = False
    classifier_dim: int = 512

    def __post_init__(self) -> None:
        require_widths(hidden_dim=self.hidden_dim, blocks=self.blocks, key_dim=self.key_dim)
        require_widths_or_off(classifier_dim=self.classifier_dim)

    @classmethod
    def released(cls) -> STINNLConfig:
        """Return the config that reproduces the released code."""
        return cls(
            joint=JointConfig(streams="layout", layout_layers=0, mask_empty=False, scale_grad_by_freq=True),
            key_bias=True,
        )


def slots_normalised(values: Tensor, mask: Tensor) -> Tensor:
    """Standardise each clip over its real slots and all channels at once: GroupNorm with one group, without gains.

    Args:
        values: (B, N, D).
        mask: (B, N), True = real.

    Returns:
        (B, N, D), zero where the mask is False.
    """
    weights = mask.unsqueeze(-1).to(values.dtype)
    count = (weights.sum((1, 2), keepdim=True) * values.shape[-1]).clamp(min=1)
    centred = (values - (values * weights).sum((1, 2), keepdim=True) / count) * weights
    variance = centred.square().sum((1, 2), keepdim=True) / count
    return centred / (variance + EPS).sqrt()


class SlotNonLocal(nn.Module):
    """One non-local block over a clip's slots, and the layer after it.

    u_i = z_i + GroupNorm(W Σ_j softmax_j(θ(z_i)ᵀ φ(z_j) / √d) g(z_j) + b);   out_i = ReLU(BN(W_2 u_i))
    """

    def __init__(self, width: int, key_dim: int, key_bias: bool) -> None:
        super().__init__()
        self.attention = Attention(width, key_dim, "softmax", nn.Linear(key_dim, width), key_bias)
        self.fusion = linear_norm_relu(width, width)

    def forward(self, instances: Tensor, slots: Tensor) -> Tensor:
        """Map (B, N, D) with mask (B, N) to (B, N, D), zero where the mask is False."""
        attended = instances + slots_normalised(self.attention(instances, slots), slots)
        return keep_real(self.fusion(attended, slots), slots)


class NonLocalInteraction(nn.Module):
    """STIN's interaction, then non-local blocks over the slots, then their average."""

    def __init__(
        self, width: int, num_steps: int, hidden_dim: int, *, blocks: int, key_dim: int, key_bias: bool
    ) -> None:
        super().__init__()
        self.interaction = Interaction(width, num_steps, hidden_dim)
        self.blocks = nn.ModuleList(SlotNonLocal(hidden_dim, key_dim, key_bias) for _ in range(blocks))

    def forward(self, joint: JointFeatures) -> Tensor:
        """Return (B, hidden_dim), zero for a clip without instances."""
        slots = slot_mask(joint.instance_mask)
        instances = self.interaction(joint)  # (B, N, hidden_dim)
        for block in self.blocks:
            instances = block(instances, slots)
        return masked_mean(instances, slots, dim=1)


@register_head
class STINNL(Head):
    """Score a clip by STIN, its instances exchanging by attention before they are averaged.

        z_i as in STIN;   3 × {u_i = z_i + GroupNorm(attention_i(z));  z_i ← ReLU(BN(W u_i))};
        logits = W_c MLP(mean_i z_i) + b

    Source: Materzynska et al. 2020 (STIN + NL), which Yan et al. 2020, Table 2, compare with.
    Differs from the released code in the fields that the preset `released` sets. That code also trains with every
    batch normalisation in evaluation mode, its gains and biases fixed; here they train, as in STIN.
    """

    name = "stin-nl"
    source = "Materzynska et al. 2020; Yan et al. 2020, Table 2"
    formula = "z as in stin; 3 × {z_i = ReLU(BN(W (z_i + GN(attention_i(z)))))}; logits = W MLP(mean_i z_i) + b"
    config_type = STINNLConfig
    presets: ClassVar[Mapping[str, STINNLConfig]] = {
        "paper": STINNLConfig(),
        "released": STINNLConfig.released(),
        "small": STINNLConfig(
            joint=JointConfig(streams="layout", appearance_dim=64, layout_dim=64, layout_layers=0, reduction_dim=0),
            hidden_dim=64,
            key_dim=32,
            classifier_dim=64,
        ),
    }

    def __init__(self, config: STINNLConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.joint = JointFrontEnd(config.joint, spec)
        self.trunk = NonLocalInteraction(
            config.joint.joint_dim(),
            spec.num_steps,
            config.hidden_dim,
            blocks=config.blocks,
            key_dim=config.key_dim,
            key_bias=config.key_bias,
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
        return HeadOutput(logits=self.classifier(self.mlp(self.trunk(self.joint(batch)))))
