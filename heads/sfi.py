"""SFI, semantic feature interaction, with the positional prediction task (Yan et al. 2020, §3.2.2–3.2.3).

Official code: github.com/ruiyan1995/Interactive_Fusion_for_CAR. Its departures from the paper's text are the fields
of `SFIConfig` and `JointConfig` that the preset `released` sets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head, require, require_widths
from ifcar.heads.joint import JointConfig, JointFeatures, JointFrontEnd
from ifcar.heads.recurrent import FlowLSTM
from ifcar.heads.rows import RowLayers, RowNorm, add_up, keep_real, linear_norm_relu, masked_mean, slot_mask
from ifcar.heads.schedules import YAN_RELEASED

SUBJECT_SUBJECT, SUBJECT_OBJECT, OBJECT_OBJECT = 1, 2, 4  # products of the two categories
OTHER = 0  # self pairs and pairs with an empty slot, released code only


@dataclass(frozen=True, kw_only=True, slots=True)
class SFIConfig:
    """Options of SFI; defaults are the paper's (§3.3).

    Args:
        joint: the front end.
        other_edges: a fourth edge type for self pairs and pairs with an empty slot. Released: yes; paper: three types.
        edge_relu: ReLU on every pair's message. Released: yes; the paper names none.
        residual: how f_i enters ψS: itself ("identity", Eq. 2) or through a linear layer ("linear", released).
        lstm_layers: layers of the LSTM of Eq. 3–4, as wide as the joint features.
        lstm_residual: add the LSTM's input to its output. Released: yes.
        temporal_hidden_dim: width of ψT's first layer; 512 in the paper, the joint width in the released code.
        temporal_dim: width of ψT's second layer.
        pool: how Z_i becomes the clip's feature: "mean" (paper) or "sum" (released) over slots.
        global_feature: put the whole frame's feature, averaged over the clip and reduced by the same 1×1×1 layer as the
            instances' (where there is one), in front of the clip's feature. Released: with detected boxes only (preset
            released-global).
        history: what the predictor observes: "prefix", all steps so far (Eq. 4), or "window", the last T_obs (released)
        decoder_bias: biases in the position and offset decoders. Released: yes; paper: none.
        prediction_reduction: over slots, "sum" (Eq. 5) or "mean" (released); always the mean over clips.
    """

    joint: JointConfig = field(default_factory=JointConfig)
    other_edges: bool = False
    edge_relu: bool = False
    residual: Literal["identity", "linear"] = "identity"
    lstm_layers: int = 2
    lstm_residual: bool = False
    temporal_hidden_dim: int = 512
    temporal_dim: int = 512
    pool: Literal["mean", "sum"] = "mean"
    global_feature: bool = False
    history: Literal["prefix", "window"] = "prefix"
    decoder_bias: bool = False
    prediction_reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths(
            lstm_layers=self.lstm_layers,
            temporal_hidden_dim=self.temporal_hidden_dim,
            temporal_dim=self.temporal_dim,
        )

    @classmethod
    def released(cls, *, global_feature: bool = False) -> SFIConfig:
        """Return the config that reproduces the authors' released code, which takes the global feature on request."""
        return cls(
            joint=JointConfig.released(),
            other_edges=True,
            edge_relu=True,
            residual="linear",
            lstm_residual=True,
            temporal_hidden_dim=512,
            temporal_dim=256,
            pool="sum",
            global_feature=global_feature,
            history="window",
            decoder_bias=True,
            prediction_reduction="mean",
        )


class CompositionalReasoning(nn.Module):
    """Category-aware messages between the instances of one step, Eq. 2.

        g_i = ψS( f_i + Σ_e Σ_{(i,j) ∈ E_e} φ_e([f_i, f_j]) ),   e ∈ {ss, so, oo},   j ≠ i

    φ_e is one linear layer without bias, W_e = [A_e B_e], so no pair needs a product of its own:
    Σ_{(i,j) ∈ E_e} W_e [f_i ; f_j] = W_e [n_e f_i ; Σ_{(i,j) ∈ E_e} f_j], n_e the number of i's pairs of type e. With a
    ReLU on every pair's message, A_e f_i and B_e f_j are computed per instance and added per pair, of its one type.
    """

    def __init__(self, width: int, config: SFIConfig) -> None:
        super().__init__()
        self.edge_relu = config.edge_relu
        self.edge_types = [SUBJECT_SUBJECT, SUBJECT_OBJECT, OBJECT_OBJECT]
        if config.other_edges:
            self.edge_types.append(OTHER)
        self.edges = nn.ModuleList(nn.Linear(2 * width, width, bias=False) for _ in self.edge_types)
        self.residual = nn.Linear(width, width, bias=False) if config.residual == "linear" else nn.Identity()
        self.fusion = nn.Linear(width, width, bias=False)

    def forward(self, joint: JointFeatures) -> Tensor:
        """Return semantic features (B, T′, N, D); zero at masked slots."""
        f = joint.features
        itself = torch.eye(f.shape[2], dtype=torch.bool, device=f.device)
        pair_type = (joint.categories.unsqueeze(-1) * joint.categories.unsqueeze(-2)).masked_fill(itself, OTHER)
        pairs = torch.stack([pair_type == e for e in self.edge_types], dim=2).to(f.dtype)  # (B, T′, E, N, N)
        message = self._each_pair(f, pairs) if self.edge_relu else self._summed_pairs(f, pairs)
        return keep_real(self.fusion(self.residual(f) + message), joint.instance_mask)

    def _summed_pairs(self, f: Tensor, pairs: Tensor) -> Tensor:
        """Return the messages (B, T′, N, D): the pairs of a type are added before its product."""
        own = torch.diag_embed(pairs.sum(-1))
        weights = torch.stack([own, pairs], dim=-2)  # (B, T′, E, N, 2, N)
        messages = []
        for edge, weight in zip(self.edges, weights.unbind(2), strict=True):
            ends = weight.flatten(2, 3) @ f  # (B, T′, 2N, D)
            messages.append(edge(ends.reshape(*f.shape[:3], -1)))
        return add_up(messages)

    def _each_pair(self, f: Tensor, pairs: Tensor) -> Tensor:
        """Return the messages (B, T′, N, D), each pair's own ReLU before their sum."""
        own, other = zip(*(_weight_of(edge).chunk(2, dim=1) for edge in self.edges), strict=True)  # E times (D, D)
        products = F.linear(f, torch.cat([*own, *other])).view(*f.shape[:3], 2, len(self.edges), -1)
        from_own, from_other = products.unbind(3)  # (B, T′, N, E, D)
        type_of_pair = pairs.permute(0, 1, 3, 4, 2)  # (B, T′, N, N, E)
        each = type_of_pair @ from_own + (type_of_pair.transpose(2, 3) @ from_other).transpose(2, 3)
        return F.relu(each).sum(3)


def _weight_of(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


class PositionalPrediction(nn.Module):
    """Predict each instance's next box and offset from its predicted state, and score them, Eq. 4–5.

    The state for step τ comes from the LSTM of Eq. 3 over the semantic features observed before τ, for every
    τ ≥ T_obs = T/4, T the frames of a view: half of the steps where T′ = T/2, and never all of them. With the whole
    prefix observed that state is the main LSTM's own output at step τ − 1; with a sliding window the LSTM starts again
    from zero for every τ.
    """

    def __init__(self, width: int, spec: CacheSpec, config: SFIConfig) -> None:
        super().__init__()
        require(spec.num_steps >= 2, "T′", spec.num_steps, "at least 2 steps, to predict one from another")
        self.num_observed = max(1, min(spec.num_frames // 4, spec.num_steps - 1))
        self.num_predicted = spec.num_steps - self.num_observed
        self.history = config.history
        self.reduction = config.prediction_reduction
        self.position = nn.Linear(width, 4, bias=config.decoder_bias)
        self.offset = nn.Linear(width, 2, bias=config.decoder_bias)

    def states(self, semantic: Tensor, lstm: FlowLSTM) -> tuple[Tensor, Tensor]:
        """Return the LSTM's outputs (M, T′, D) and the predicted states (M, T′ − T_obs, D) from its inputs."""
        if self.history == "window":
            return lstm.with_windows(semantic, self.num_observed)
        flow = lstm(semantic)
        return flow, flow[:, self.num_observed - 1 : -1]

    def forward(self, states: Tensor, boxes: Tensor, present: Tensor) -> Tensor:
        """Return the loss.

        Args:
            states: (B, N, T′ − T_obs, D) predicted states.
            boxes: (B, N, T′, 4), finite everywhere.
            present: (B, N, T′), True where the slot holds an instance; other steps are no targets.
        """
        observed = self.num_observed
        boxes = boxes.to(torch.promote_types(boxes.dtype, states.dtype))
        target = boxes[:, :, observed:]
        offset = (target - boxes[:, :, observed - 1 : -1])[..., :2]
        now, before = present[:, :, observed:], present[:, :, observed - 1 : -1]
        position_error = (self.position(states) - target).square().sum(-1) * now
        offset_error = (self.offset(states) - offset).square().sum(-1) * (now & before)
        total: Tensor = (position_error + offset_error).sum()
        if self.reduction == "sum":
            return total / len(boxes)
        return total / present.any(2).sum().clamp(min=1)


@register_head
class SFI(Head):
    """Score a clip from category-aware interactions of its instances, followed over time.

        g_i^t = Eq. 2;   Z_i = ψT([LSTM(g_i^1 … g_i^T′)]);   logits = W mean_i Z_i + b;
        loss "prediction": Σ_t Σ_i ‖p̂ − p‖² + ‖ô − o‖², mean over clips

    Source: Yan et al. 2020, Eq. 1–5, §3.3.
    Differs from the released code in the fields that the preset `released` sets (see `SFIConfig`). Where an instance
    is absent for a step, the LSTM's input there is zero and the step is no prediction target.
    """

    name = "sfi"
    source = "Yan et al. 2020, §3.2.2–3.2.3, Eq. 1–5"
    formula = "g_i = ψS(f_i + Σ φ_ss + Σ φ_so + Σ φ_oo); Z_i = ψT(concat LSTM(g_i)); logits = W mean_i Z_i + b"
    config_type = SFIConfig
    presets: ClassVar[Mapping[str, SFIConfig]] = {
        "paper": SFIConfig(),
        "released": SFIConfig.released(),
        "released-global": SFIConfig.released(global_feature=True),
        "small": SFIConfig(
            joint=JointConfig(appearance_dim=64, layout_dim=64, reduction_dim=0),
            temporal_hidden_dim=64,
            temporal_dim=64,
        ),
        "tuned": SFIConfig(
            joint=JointConfig.tuned(64), edge_relu=True, lstm_layers=1, temporal_hidden_dim=64, temporal_dim=64
        ),
    }
    schedules = YAN_RELEASED
    auxiliary: ClassVar[Mapping[str, tuple[str, ...]]] = {"prediction": ()}

    @classmethod
    def reads(cls, config: SFIConfig) -> tuple[str, ...]:
        """Return the arrays of the chosen streams, and the global feature's where it is on."""
        return ("frame_features", *config.joint.reads()) if config.global_feature else config.joint.reads()

    def __init__(self, config: SFIConfig, spec: CacheSpec, num_classes: int, losses: Collection[str] = ()) -> None:
        super().__init__(config, spec, num_classes, losses)
        width = config.joint.joint_dim()
        self.config = config
        self.joint = JointFrontEnd(config.joint, spec)
        self.reasoning = CompositionalReasoning(width, config)
        self.lstm = FlowLSTM(width, config.lstm_layers)
        self.temporal = RowLayers(
            *linear_norm_relu(spec.num_steps * width, config.temporal_hidden_dim),
            *linear_norm_relu(config.temporal_hidden_dim, config.temporal_dim),
        )
        frame_dim = 0
        if config.global_feature:
            self.frame_norm = RowNorm(spec.channels, affine=False) if config.joint.input_norm else nn.Identity()
            appearance = self.joint.appearance
            frame_dim = spec.channels if appearance is None else appearance.reduced_channels
        self.classifier = nn.Linear(frame_dim + config.temporal_dim, num_classes)
        self.prediction = PositionalPrediction(width, spec, config) if "prediction" in self.losses else None

    def remarks(self) -> Sequence[str]:
        """Say where the prediction task has no more than one step to predict."""
        if self.prediction is None or self.prediction.num_predicted > 1:
            return ()
        observed = self.prediction.num_observed
        return (
            f"the auxiliary loss 'prediction' has one step to predict: T′ is {observed + 1}, of which {observed} "
            f"{'is' if observed == 1 else 'are'} observed; the paper predicts two of four: more --frames give it more",
        )

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view from its instances and their category-aware pairs.

        Args:
            batch: instance_features (B, T′, N, C, P, P), boxes (B, T, N, 4), categories (B, T, N), as the streams
                need them, and frame_features (B, T′, C) for the global feature; empty slots may hold anything.

        Returns:
            logits (B, K); losses {"prediction": ()} where it is on. With the paper's preset,
            independent of slot order and of what empty slots hold.
        """
        joint = self.joint(batch)
        slots = slot_mask(joint.instance_mask)  # (B, N)
        semantic = self.reasoning(joint).transpose(1, 2).flatten(0, 1)  # (B·N, T′, D)
        if self.prediction is None:
            flow = self.lstm(semantic)
        else:
            flow, states = self.prediction.states(semantic, self.lstm)
        temporal = flow + semantic if self.config.lstm_residual else flow
        z = self.temporal(temporal.reshape(*slots.shape, -1), slots)  # (B, N, temporal_dim)
        pooled = masked_mean(z, slots, dim=1) if self.config.pool == "mean" else keep_real(z, slots).sum(1)
        logits = self.classifier(self._with_frame(pooled, batch))
        if self.prediction is None:
            return HeadOutput(logits=logits)
        boxes, present = joint.boxes.transpose(1, 2), joint.instance_mask.transpose(1, 2)
        loss = self.prediction(states.view(*slots.shape, *states.shape[1:]), boxes, present)
        return HeadOutput(logits=logits, losses={"prediction": loss})

    def _with_frame(self, pooled: Tensor, batch: InstanceBatch) -> Tensor:
        """Put the global feature in front of (B, temporal_dim) where it is on."""
        if not self.config.global_feature:
            return pooled
        frame = self.frame_norm(batch.array("frame_features").to(pooled.dtype).mean(dim=1))
        if self.joint.appearance is not None:
            frame = self.joint.appearance.reduce(frame)
        return torch.cat([frame, pooled], dim=-1)
