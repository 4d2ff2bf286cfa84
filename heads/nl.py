"""Ours-NLs: non-local attention over all instances of all steps, on joint features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.attention import NonLocal, Similarity, SubsampledNonLocal
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head, require, require_widths
from ifcar.heads.joint import JointConfig, JointFrontEnd
from ifcar.heads.rows import keep_real, masked_mean, slot_mask
from ifcar.heads.schedules import YAN_RELEASED


@dataclass(frozen=True, kw_only=True, slots=True)
class NLConfig:
    """Options of the non-local head.

    Args:
        joint: the front end.
        blocks: non-local blocks in a row.
        attention: how a pair's weight is computed: "softmax" (embedded Gaussian, the default of Wang et al. 2018) or
            "dot" (dot product over the number of nodes). Released: dot.
        subsample: the released code's block in place of the papers': keys and values are maxima over 2 × 2 neighbours
            (steps, slots) and batch normalisation follows W, see `SubsampledNonLocal`. Needs `attention` dot,
            `joint.mask_empty` off, and two steps and slots.
        key_dim: width of θ, φ and g; half the joint width, as in Wang et al. 2018.
        step_dim: width to which each node is reduced before the steps are concatenated.
        hidden_dim: width of an instance's feature over all steps.
    """

    joint: JointConfig = field(default_factory=JointConfig)
    blocks: int = 1
    attention: Similarity = "softmax"
    subsample: bool = False
    key_dim: int = 512
    step_dim: int = 512
    hidden_dim: int = 512

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths(blocks=self.blocks, key_dim=self.key_dim, step_dim=self.step_dim, hidden_dim=self.hidden_dim)
        if self.subsample:
            require(self.attention == "dot", "attention", self.attention, "dot, the only one that subsample has")
            require(not self.joint.mask_empty, "joint.mask_empty", True, "False beside subsample, which masks nothing")


@register_head
class NL(Head):
    """Score a clip from instances that attend to every instance of every step.

        z_i^t = f_i^t + W Σ_{j,s} softmax_{j,s}(θ(f_i^t)ᵀ φ(f_j^s) / √d) g(f_j^s)
        logits = W_c mean_i W_2 [W_1 z_i^1 ; … ; W_1 z_i^T′] + b

    Source: Yan et al. 2020, §4.1 and Table 2 (Ours-NLs); block of Wang et al. 2018, as Wang and Gupta 2018 §6 cite it.
    Differs: the papers leave open what follows the block. As in the released code (module STNL) two linear layers
    without an activation do, so that attention is all that is not linear here. The released block (preset released)
    uses the dot product on sub-sampled keys and sees empty slots; in preset paper a step in which an instance is absent
    enters the concatenation as zeros.
    """

    name = "nl"
    source = "Yan et al. 2020, §4.1, Table 2; Wang et al. 2018, Eq. 1–6"
    formula = "z = f + W softmax(θ(f)ᵀφ(f)/√d) g(f) over T′·N; logits = W mean_i W_2 concat_t W_1 z_i^t + b"
    config_type = NLConfig
    presets: ClassVar[Mapping[str, NLConfig]] = {
        "paper": NLConfig(),
        "released": NLConfig(joint=JointConfig.released(), attention="dot", subsample=True, key_dim=256),
        "small": NLConfig(
            joint=JointConfig(appearance_dim=64, layout_dim=64, reduction_dim=0),
            key_dim=64,
            step_dim=64,
            hidden_dim=64,
        ),
    }
    schedules = YAN_RELEASED

    def __init__(self, config: NLConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        width = config.joint.joint_dim()
        self.joint = JointFrontEnd(config.joint, spec)
        if config.subsample:
            require(spec.num_steps >= 2, "T′", spec.num_steps, "at least 2 steps, which subsample takes maxima over")
            require(spec.num_instances >= 2, "N", spec.num_instances, "at least 2 slots, as for the steps")
        self.blocks = nn.ModuleList(
            SubsampledNonLocal(width, config.key_dim, spec.num_instances)
            if config.subsample
            else NonLocal(width, config.key_dim, config.attention)
            for _ in range(config.blocks)
        )
        self.step = nn.Linear(width, config.step_dim)
        self.temporal = nn.Linear(spec.num_steps * config.step_dim, config.hidden_dim)
        self.classifier = nn.Linear(config.hidden_dim, num_classes)

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
        mask = joint.instance_mask
        nodes, real = joint.features.flatten(1, 2), mask.flatten(1, 2)  # (B, T′·N, D), (B, T′·N)
        for block in self.blocks:
            nodes = block(nodes, real)
        steps = keep_real(self.step(nodes).unflatten(1, mask.shape[1:]), mask)  # (B, T′, N, step_dim)
        instances = self.temporal(steps.transpose(1, 2).flatten(2))  # (B, N, hidden_dim)
        return HeadOutput(logits=self.classifier(masked_mean(instances, slot_mask(mask), dim=1)))
