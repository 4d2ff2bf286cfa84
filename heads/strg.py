"""STRG: convolutions on similarity and space-time graphs of instances (Wang and Gupta 2018)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.errors import CacheMismatchError
from ifcar.heads.attention import NonLocal
from ifcar.heads.contract import (
    Head,
    HeadOutput,
    InstanceBatch,
    register_head,
    require_fraction,
    require_widths,
    require_widths_or_off,
)
from ifcar.heads.dropout import Dropout
from ifcar.heads.frame import GlobalFeature
from ifcar.heads.graphs import GraphNetwork, SimilarityGraph, spatial_temporal_graphs
from ifcar.heads.joint import JointConfig, JointFeatures, JointFrontEnd
from ifcar.heads.rows import add_up, masked_mean
from ifcar.heads.schedules import ANY, WANG_GUPTA, YAN_RELEASED, Schedules

Graphs = Literal["similarity", "spatial-temporal", "joint"]


@dataclass(frozen=True, kw_only=True, slots=True)
class STRGConfig:
    """Options of STRG; defaults are those of Ours-STRG, on joint features (Yan et al. 2020, Table 2).

    Args:
        joint: the front end.
        graphs: the similarity graph (Eq. 1–2), the front and back graphs (Eq. 3), or both in two branches ("joint").
        layers: graph convolutions in each branch.
        last_activation: LayerNorm and ReLU after the last layer too. Wang and Gupta name both before a feature goes on
            to the next layer, so the last has none; and as it starts at zero, a ReLU after it would keep it there.
            Released: yes.
        graph_norm: LayerNorm before each of those ReLUs. Released: no.
        zero_start: the last layer starts at zero. Released: no.
        constant_graph: the similarity graph passes no gradient, so that φ and φ′ stay as drawn. Released: yes.
        residual: add the nodes to what the branches make of them, so that training starts from the instances' own
            features. Released code of Yan et al.: yes. Wang and Gupta: no, they start from the global feature.
        non_local: a non-local block on the nodes before the graphs. In Wang and Gupta's "NL + joint GCN" (Table 2b)
            the blocks sit in the backbone; a cache holds the backbone's output only.
        key_dim: width of that block's θ, φ and g.
        pool: "steps", mean over the instances of a step, the steps concatenated (released code of Yan et al.), or
            "nodes", mean over all nodes (Wang and Gupta).
        hidden_dim: width of a Linear–ReLU layer after pooling; 0 leaves it out (Wang and Gupta).
        hidden_bias: a bias in that layer. Released: no.
        frame_dim: width to which the global feature is reduced, which is concatenated then; 0 leaves it out.
        dropout: before the classifier; 0.3 in Wang and Gupta.
    """

    joint: JointConfig = field(default_factory=JointConfig)
    graphs: Graphs = "joint"
    layers: int = 3
    last_activation: bool = False
    graph_norm: bool = True
    zero_start: bool = True
    constant_graph: bool = False
    residual: bool = True
    non_local: bool = False
    key_dim: int = 512
    pool: Literal["steps", "nodes"] = "steps"
    hidden_dim: int = 1024
    hidden_bias: bool = True
    frame_dim: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths(layers=self.layers, key_dim=self.key_dim)
        require_widths_or_off(hidden_dim=self.hidden_dim, frame_dim=self.frame_dim)
        require_fraction(dropout=self.dropout)

    @classmethod
    def released(cls) -> STRGConfig:
        """Return the config that reproduces the released code of Yan et al. 2020, which builds IoU graphs unused."""
        return cls(
            joint=JointConfig.released(),
            graphs="similarity",
            last_activation=True,
            graph_norm=False,
            zero_start=False,
            constant_graph=True,
            hidden_dim=512,
            hidden_bias=False,
        )

    @classmethod
    def full(cls) -> STRGConfig:
        """Return the config of Wang and Gupta 2018: appearance nodes of 512, and the global feature."""
        return cls(
            joint=JointConfig(streams="appearance", reduction_dim=0, dropout=0.0),
            residual=False,
            pool="nodes",
            hidden_dim=0,
            frame_dim=512,
            dropout=0.3,
        )


class GraphReasoning(nn.Module):
    """Two branches of graph convolutions whose results are added at the end.

        Z = GCN(G^sim, X) + GCN(G^front, G^back, X)

    Source: Wang and Gupta 2018, §5.
    """

    def __init__(self, width: int, config: STRGConfig) -> None:
        super().__init__()
        self.similarity_graph: SimilarityGraph | None = None
        self.similarity: GraphNetwork | None = None
        self.spatial_temporal: GraphNetwork | None = None
        if config.graphs != "spatial-temporal":
            self.similarity_graph = SimilarityGraph(width, constant=config.constant_graph)
            self.similarity = self._network(width, 1, config)
        if config.graphs != "similarity":
            self.spatial_temporal = self._network(width, 2, config)

    @staticmethod
    def _network(width: int, num_graphs: int, config: STRGConfig) -> GraphNetwork:
        return GraphNetwork(
            width,
            num_graphs,
            config.layers,
            last_activation=config.last_activation,
            norm=config.graph_norm,
            zero_start=config.zero_start,
        )

    def forward(self, nodes: Tensor, joint: JointFeatures) -> Tensor:
        """Return what the graphs make of nodes (B, M, D): (B, M, D)."""
        branches = []
        if self.similarity is not None and self.similarity_graph is not None:
            graph = self.similarity_graph(nodes, joint.instance_mask.flatten(1, 2))
            branches.append(self.similarity([graph], nodes))
        if self.spatial_temporal is not None:
            graphs = spatial_temporal_graphs(joint.boxes.to(nodes.dtype), joint.instance_mask)
            branches.append(self.spatial_temporal(graphs, nodes))
        return add_up(branches)


@register_head
class STRG(Head):
    """Score a clip from its instances after graph convolutions over the whole clip.

        Z = [X +] GCN(G^sim, X) + GCN(G^front, G^back, X),   one layer: Z = Σ_i G_i X W_i
        paper: logits = W ReLU(W_1 [mean_i z_i^1 ; … ; mean_i z_i^T′] + b_1) + b
        full:  logits = W [mean_{t,i} z_i^t ; W_g mean_t(frame_features_t)] + b

    Source: Wang and Gupta 2018, §4–6, Eq. 1–5 (preset full); Yan et al. 2020, Table 2, Ours-STRG (preset paper).
    Differs: preset paper takes the pooling, the layer after it and the residual from the released code of Yan et al.
    That code (preset released) has the similarity graph only, holds it constant, puts a ReLU without LayerNorm after
    every layer, starts none at zero, and has no bias in the layer after pooling; in preset paper all of this follows
    Wang and Gupta. In preset full nodes and frame are mapped to 512 by a linear layer each, after RoIAlign, where the
    paper's backbone ends in one for both; with instances of the maximum over 7×7 bins, as in the paper, only a backbone
    that itself ends in one makes them (`check_pooled`).
    """

    name = "strg"
    source = "Wang and Gupta 2018, §4–6, Eq. 1–5; Yan et al. 2020, Table 2"
    formula = "Z = X + GCN(G_sim, X) + GCN(G_front, G_back, X); logits = W ReLU(W_1 concat_t mean_i z_i^t + b_1) + b"
    config_type = STRGConfig
    presets: ClassVar[Mapping[str, STRGConfig]] = {
        "paper": STRGConfig(),
        "released": STRGConfig.released(),
        "full": STRGConfig.full(),
        "small": STRGConfig(
            joint=JointConfig(appearance_dim=64, layout_dim=64, reduction_dim=0), key_dim=64, hidden_dim=64
        ),
    }
    schedules: ClassVar[Schedules] = {**YAN_RELEASED, "wang-gupta": {ANY: WANG_GUPTA}}

    @classmethod
    def reads(cls, config: STRGConfig) -> tuple[str, ...]:
        """Return the arrays of the chosen streams, and the global feature's where it is on."""
        return ("frame_features", *config.joint.reads()) if config.frame_dim else config.joint.reads()

    @classmethod
    def check_pooled(cls, config: STRGConfig, spec: CacheSpec, pooled: str) -> None:
        """Refuse to reduce appearance nodes after the maximum over their bins; the paper's backbone does so before."""
        width = config.joint.appearance_dim
        published = config.pool == "nodes" and config.joint.streams == "appearance"
        if published and pooled == "7-max" and spec.channels > width:
            raise CacheMismatchError(
                f"head {cls.name!r} with these options would reduce {spec.channels} channels to {width} after the "
                "maximum over 7×7 bins, which is another function than Wang and Gupta's, whose backbone reduces them "
                "before: extract with a backbone that does (`ifcar finetune i3d` makes one) or with --pooled 3, or "
                f"keep the channels with --set joint.appearance_dim={spec.channels}"
            )

    def __init__(self, config: STRGConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.config = config
        self.frame: GlobalFeature | None = None
        if config.frame_dim:
            self.frame = GlobalFeature(spec.channels, config.frame_dim, config.joint.input_norm)
        width = config.joint.joint_dim()
        self.joint = JointFrontEnd(config.joint, spec)
        self.non_local = NonLocal(width, config.key_dim, "softmax") if config.non_local else None
        self.reasoning = GraphReasoning(width, config)
        pooled_dim = width * spec.num_steps if config.pool == "steps" else width
        self.hidden = nn.Sequential()
        if config.hidden_dim:
            self.hidden.extend([nn.Linear(pooled_dim, config.hidden_dim, bias=config.hidden_bias), nn.ReLU()])
        clip_dim = (config.hidden_dim or pooled_dim) + config.frame_dim
        self.dropout = Dropout(config.dropout, (clip_dim,))
        self.classifier = nn.Linear(clip_dim, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: boxes (B, T, N, 4), categories (B, T, N); instance_features (B, T′, N, C, P, P) as the streams need
                them; frame_features (B, T′, C) where `frame_dim` asks for them. Empty slots may hold anything.

        Returns:
            logits (B, K); no auxiliary loss. Independent of slot order and, but for the preset released, of what empty
            slots hold.
        """
        joint = self.joint(batch)
        mask = joint.instance_mask
        nodes = joint.features.flatten(1, 2)  # (B, T′·N, D)
        if self.non_local is not None:
            nodes = self.non_local(nodes, mask.flatten(1, 2))
        updated = self.reasoning(nodes, joint)
        if self.config.residual:
            updated = updated + nodes
        if self.config.pool == "steps":
            pooled = masked_mean(updated.unflatten(1, mask.shape[1:]), mask, dim=2).flatten(1)  # (B, T′·D)
        else:
            pooled = masked_mean(updated, mask.flatten(1, 2), dim=1)  # (B, D)
        clip = self.hidden(pooled)
        if self.frame is not None:
            clip = torch.cat([clip, self.frame(batch)], dim=-1)
        return HeadOutput(logits=self.classifier(self.dropout(clip)))

    @torch.no_grad()
    def explain(self, batch: InstanceBatch) -> Mapping[str, Tensor]:
        """Return the graphs that the config has, in float64, which does not round far neighbours' weights to 0.

        "similarity" (B, T′, N, T′, N), a row sums to 1 or, for an empty slot, to 0; "front" (B, T′ − 1, N, N), the
        weights with which a box links to those of the next step.
        """
        joint = self.joint(batch)
        mask, found = joint.instance_mask, dict[str, Tensor]()
        if self.reasoning.similarity_graph is not None:
            nodes = joint.features.flatten(1, 2)
            if self.non_local is not None:
                nodes = self.non_local(nodes, mask.flatten(1, 2))
            exact = copy.deepcopy(self.reasoning.similarity_graph).double()
            graph = exact(nodes.double(), mask.flatten(1, 2))
            found["similarity"] = graph.view(len(graph), *mask.shape[1:], *mask.shape[1:])
        if self.reasoning.spatial_temporal is not None:
            front = spatial_temporal_graphs(joint.boxes.double(), mask)[0].blocks
            found["front"] = front[:, :-1]  # the last step links to none
        return found
