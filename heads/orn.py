"""ORN, the object relation network: relations between objects of two frames, over time, beside an activity head.

Source: Baradel et al. 2018, "Object Level Visual Reasoning in Videos", §3–5. Official code:
github.com/fabienbaradel/object_level_visual_reasoning (f504715). Its departures from the paper's text are the fields of
`ORNConfig` that the preset `released` sets. Left out: the first of its two training stages moves the last block of the
activity head only, which the object head does not read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, register_head
from ifcar.heads.orn_config import ORNConfig
from ifcar.heads.orn_objects import InstanceObjects, Objects, PixelObjects
from ifcar.heads.orn_relations import Relations
from ifcar.heads.recurrent import FlowGRU
from ifcar.heads.rows import RowNorm, add_up
from ifcar.heads.schedules import ANY, Schedule, Schedules

RELEASED_NAMES: Mapping[str, str] = {
    "COCO_Object_Class_from_Features.fc": "object.objects.classes",
    "Encoder_Binary_Mask.encoder.linear_0": "object.objects.mask.linear_0",
    "Encoder_Binary_Mask.encoder.linear_1": "object.objects.mask.linear_1",
    "Encoder_COCO_Obj_Class.encoder.linear_0": "object.objects.code.linear_0",
    "Encoder_COCO_Obj_Class.encoder.linear_1": "object.objects.code.linear_1",
    "ORN.mlp_inter.encoder.linear_0": "object.relations.layers.linear_0",
    "ORN.mlp_inter.encoder.linear_1": "object.relations.layers.linear_1",
    "ORN.mlp_inter.encoder.linear_2": "object.relations.layers.linear_2",
    "rnn_objects": "object.over_time",
    "fc_classifier_object": "classifier.object",
    "fc_classifier_context": "classifier.activity",
}
"""The released code's module → ours, in the preset `released`; parameters have the same names and shapes."""


class ObjectHead(nn.Module):
    """Objects, their relations, and the reasoning state: r_t = f_φ(g_t, r_{t−1}), r = Σ_t r_t (Eq. 4–8)."""

    def __init__(self, config: ORNConfig, spec: CacheSpec, losses: Collection[str] = ()) -> None:
        super().__init__()
        if spec.num_steps < 2:
            raise CacheMismatchError(
                f"head 'orn' relates objects of two feature steps, but this cache has T′ = {spec.num_steps}; extract "
                "more frames, or give --set heads=activity"
            )
        coco = config.objects == "coco"
        self.objects = InstanceObjects(config, spec, losses) if coco else PixelObjects(config, spec)
        self.relations = Relations(config, spec.num_steps, self.objects.num_objects, self.objects.width)
        self.over_time: FlowGRU | nn.Sequential | None = None
        if config.f == "gru":
            self.over_time = FlowGRU(config.relation_dim, config.state_dim)
        elif config.f == "mlp":
            self.over_time = nn.Sequential(nn.Linear(config.relation_dim, config.state_dim), nn.ReLU())
        self.width = config.relation_dim if config.f == "avg" else config.state_dim
        self.mean = config.f == "avg" or config.state_pool == "mean"

    def forward(self, batch: InstanceBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Return r, (B, width), and the object-class loss where there is one."""
        objects: Objects = self.objects(batch, dtype)
        states = self.relations(objects)
        if self.over_time is not None:
            states = self.over_time(states)
        return states.mean(1) if self.mean else states.sum(1), objects.class_loss


class ActivityHead(nn.Module):
    """The frame's own features over time: s_t = GRU(v_t, s_{t−1}), h = Σ_t s_t (Eq. 9), or the mean of v_t."""

    def __init__(self, config: ORNConfig, spec: CacheSpec) -> None:
        super().__init__()
        self.input_norm = RowNorm(spec.channels, affine=False) if config.input_norm else None
        self.over_time = FlowGRU(spec.channels, config.activity_dim) if config.aggregate == "gru" else None
        self.width = spec.channels if self.over_time is None else config.activity_dim

    def forward(self, batch: InstanceBatch, dtype: torch.dtype) -> Tensor:
        """Return h, (B, width), of frame_features (B, T′, C)."""
        frames = batch.array("frame_features").to(dtype)
        if self.input_norm is not None:
            frames = self.input_norm(frames)
        return frames.mean(1) if self.over_time is None else self.over_time(frames).sum(1)


class HeadsClassifier(nn.Module):
    """One linear layer a head, y¹ = W h + b and y² = Z r + d, and the mean or the sum of the two (Eq. 10–11)."""

    def __init__(self, object_dim: int, activity_dim: int, num_classes: int, logits: str) -> None:
        super().__init__()
        self.object = nn.Linear(object_dim, num_classes) if object_dim else None
        self.activity = nn.Linear(activity_dim, num_classes) if activity_dim else None
        self.mean = logits == "mean"

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        layer = self.activity if self.object is None else self.object
        assert layer is not None
        return layer.weight.dtype

    def forward(self, reasoning: Tensor | None, context: Tensor | None) -> Tensor:
        """Return logits (B, K) of r (B, object_dim) and h (B, activity_dim), of which those of no head are None."""
        scores = [
            layer(state)
            for layer, state in ((self.object, reasoning), (self.activity, context))
            if layer is not None and state is not None
        ]
        total = add_up(scores)
        return total / len(scores) if self.mean and len(scores) > 1 else total


@register_head
class ORN(Head):
    """Score a clip from how objects of one frame relate to those of an earlier one, and from the frames themselves.

        o = [b; u; c];   g_t = Σ_{j,k} h_θ([o_s^j ; o_t^k]), s < t;   r = Σ_t GRU(g_t);   h = Σ_t GRU(v_t);
        logits = ½ (W h + b + Z r + d);   loss "object_class": Σ_t Σ_k CE(R u_t^k + e, class_t^k), mean over clips

    Source: Baradel et al. 2018, Eq. 4–13.
    Differs: in evaluation g_t is the mean over all earlier frames, as in the released code; the text draws one, as is
    done here in training. Without masks in pooling (RoIAlign) u is the mean over a box's bins, where Eq. 6 averages
    over the mask. The number of classes is the cache's: 81 with background in the paper, whose text says 80. The fields
    of `ORNConfig` that the preset `released` sets are what differs in the released code.
    """

    name = "orn"
    source = "Baradel et al. 2018, §3–5, Eq. 4–13"
    formula = "g_t = Σ_jk h([o_s^j; o_t^k]), s < t; r = Σ_t GRU(g_t); h = Σ_t GRU(v_t); logits = (W h + Z r) / 2 + b"
    config_type = ORNConfig
    presets: ClassVar[Mapping[str, ORNConfig]] = {
        "paper": ORNConfig(),
        "paper-resnet18": ORNConfig(relation_dim=256, state_dim=128, activity_dim=256),
        "released": ORNConfig.released(),
        "small": ORNConfig(mask_dim=32, relation_dim=64, state_dim=32, activity_dim=64),
    }
    auxiliary: ClassVar[Mapping[str, tuple[str, ...]]] = {"object_class": ("object_classes",)}
    schedules: ClassVar[Schedules] = {
        "paper": {
            ANY: Schedule(
                source="Baradel et al. 2018; batch of the released code",
                optimizer="adam",
                lr=1e-4,
                epochs=30,
                batch_size=32,
                weight_decay=0.0,
            )
        },
        "released": {
            "vlog": Schedule(
                source="released code of Baradel et al. 2018",
                optimizer="adam",
                lr=1e-4,
                epochs=10,
                batch_size=32,  # of the object head; then, with both, 8
                weight_decay=0.0,
                clip_gradient=10 / 15,  # its loss is 15 times ours: 15 BCE + the object classes' mean cross entropy
            )
        },
    }
    classifier: HeadsClassifier

    def __init__(self, config: ORNConfig, spec: CacheSpec, num_classes: int, losses: Collection[str] = ()) -> None:
        if "object_class" in losses:
            config.check_class_loss()
        super().__init__(config, spec, num_classes, losses)
        self.config = config
        self.object = ObjectHead(config, spec, losses) if config.has_objects else None
        self.activity = ActivityHead(config, spec) if config.has_activity else None
        object_dim, activity_dim = (0 if head is None else head.width for head in (self.object, self.activity))
        self.classifier = HeadsClassifier(object_dim, activity_dim, num_classes, config.logits)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: as heads and features need them: instance_features (B, T′, N, C, P, P), masks (B, T, N, h, w),
                object_classes and categories (B, T, N); grid_features (B, T′, C, H, W); frame_features (B, T′, C).

        Returns:
            logits (B, K); losses {"object_class": ()} where it is on. Independent of slot order, and with
            gate "presence" of what empty slots hold.
        """
        dtype = self.classifier.dtype
        losses: dict[str, Tensor] = {}
        reasoning = context = None
        if self.object is not None:
            reasoning, class_loss = self.object(batch, dtype)
            if class_loss is not None:
                losses["object_class"] = class_loss
        if self.activity is not None:
            context = self.activity(batch, dtype)
        return HeadOutput(logits=self.classifier(reasoning, context), losses=losses)

    def explain(self, batch: InstanceBatch) -> Mapping[str, Tensor]:
        """Return "relations", see `relations`, where objects are related in pairs."""
        pairs = self.object is not None and self.object.relations.config.clique == 2
        return {"relations": self.relations(batch)} if pairs else {}

    def relations(self, batch: InstanceBatch) -> Tensor:
        """Return how strongly each pair of objects is related, (B, T′, T′, N, N), at least 0.

        e[t, s, j, k] = Σ_d h_θ([o_s^j ; o_t^k])_d; zero for s ≥ t and where either object is absent. With pairs "intra"
        both are objects of t, whatever s.

        Raises:
            InputError: there is no object head, or its cliques are no pairs.
        """
        if self.object is None or self.object.relations.config.clique != 2:
            raise InputError("relations between pairs need --set heads=object or both, and clique=2")
        return self.object.relations.strengths(self.object.objects(batch, self.classifier.dtype))
