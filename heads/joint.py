"""The front end that relational heads share: instance-centric joint features (Yan et al. 2020, §3.2.1).

appearance   F_app = W vec(RoI)                                               (d_app)
layout       F_non_app = MLP([position(c_x, c_y, w, h) ; embedding(category)])  (d_non_app)
joint        F = [F_app ; F_non_app]                                          (d_joint)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.contract import InstanceBatch, require, require_fraction, require_widths, require_widths_or_off
from ifcar.heads.distinct import distinct_rows
from ifcar.heads.dropout import Dropout
from ifcar.heads.embedding import OneHotEmbedding
from ifcar.heads.motion import MOTION_DIM, motion_of
from ifcar.heads.rows import RowLayers, RowNorm, keep_real, linear_norm_relu, step_index
from ifcar.heads.standardise import rows_linear

Streams = Literal["appearance", "layout", "both"]
NUM_CATEGORIES = 3
BOX_DIM = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class JointConfig:
    """Options of the front end; defaults are the paper's (§3.3).

    Args:
        streams: which features make up the joint representation.
        appearance_dim: d_app.
        reduction_dim: width of the 1×1×1 reduction applied first when the cache has more channels (the paper's
            backbone ends in it: 2048 → 512); 0 leaves the channels as they are.
        layout_dim: d_non_app.
        category: fuse the category's embedding with the position. Without it the layout is the position MLP's output,
            as in the original STIN on coordinates alone (Materzynska et al. 2020), and what the slots hold is told by
            nothing else; heads still see which slots are empty.
        layout_layers: Linear–ReLU layers after the fusion of position and category. Released: 2; the original STIN
            (Materzynska et al. 2020): 0.
        input_norm: standardise each cached channel by batch statistics (running ones in evaluation) before the first
            layer. Frozen features keep the backbone's scale and offset; the paper fine-tunes the backbone, which
            adapts them. An affine map before a linear layer: the head stays the same function. Released: no.
        dropout: after the appearance embedding, as in the released code; the paper names none.
        appearance_relu: ReLU after the appearance embedding. Released: yes; the paper: a linear transformation.
        motion: give the position MLP, beside the box, how far its centre moved since the last step and how far it is
            from its mean over the clip (zero where the instance is absent). Not in the paper; off by default.
        mask_empty: leave empty slots out of every statistic and result. Released: no.
        scale_grad_by_freq: divide an embedding row's gradient by its count in the batch. Released: yes.
    """

    streams: Streams = "both"
    appearance_dim: int = 512
    reduction_dim: int = 512
    layout_dim: int = 512
    category: bool = True
    layout_layers: int = 2
    input_norm: bool = True
    dropout: float = 0.3
    appearance_relu: bool = False
    motion: bool = False
    mask_empty: bool = True
    scale_grad_by_freq: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths(appearance_dim=self.appearance_dim, layout_dim=self.layout_dim)
        require(self.layout_dim % 2 == 0, "layout_dim", self.layout_dim, "an even number")
        require_widths_or_off(layout_layers=self.layout_layers, reduction_dim=self.reduction_dim)
        require_fraction(dropout=self.dropout)

    @classmethod
    def released(cls) -> JointConfig:
        """Return the front end of the released code of Yan et al. 2020, at its default width."""
        return cls(
            appearance_dim=256,
            layout_dim=256,
            appearance_relu=True,
            input_norm=False,
            mask_empty=False,
            scale_grad_by_freq=True,
        )

    @classmethod
    def tuned(cls, width: int) -> JointConfig:
        """Return the front end of the presets `tuned`: narrow streams of this width, told how instances move."""
        return cls(appearance_dim=width, layout_dim=width, reduction_dim=0, motion=True)

    def joint_dim(self) -> int:
        """Return d_joint, the width of the joint features."""
        return self.appearance_dim * (self.streams != "layout") + self.layout_dim * (self.streams != "appearance")

    def label(self) -> str:
        """Return the stream where there is one only."""
        return "" if self.streams == "both" else self.streams

    def reads(self) -> tuple[str, ...]:
        """Return the cache arrays that the front end needs."""
        layout = ("boxes", "categories")
        return layout if self.streams == "layout" else ("instance_features", *layout)


class Appearance(nn.Module):
    """Embed RoI features: an optional 1×1×1 reduction of the channels, then one linear layer over all bins.

    The standardisation of the input is folded into the first layer, W (x − μ)/σ + b = (W/σ) x + (b − W μ/σ), so that
    the features themselves, the largest tensor of all, are only read.
    """

    def __init__(self, config: JointConfig, spec: CacheSpec) -> None:
        super().__init__()
        channels = spec.channels
        self.bins = spec.pooled_size**2
        self.input_norm = RowNorm(channels, affine=False) if config.input_norm else None
        self.reduction: nn.Linear | None = None
        if 0 < config.reduction_dim < channels:
            self.reduction = nn.Linear(channels, config.reduction_dim)
            channels = config.reduction_dim
        self.reduced_channels = channels
        self.embed = nn.Linear(channels * self.bins, config.appearance_dim)
        self.activation = nn.ReLU() if config.appearance_relu else nn.Identity()
        self.dropout = Dropout(config.dropout, (spec.num_steps, spec.num_instances, config.appearance_dim))

    def forward(self, regions: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T′, N, C, P, P) with mask (B, T′, N), True = real, to (B, T′, N, d_app)."""
        rows = regions.flatten(0, 2).flatten(2)  # (R, C, bins)
        if self.reduction is None:
            embedded = self._first_layer(self.embed, rows, mask.flatten())
        else:
            by_bin = rows.transpose(1, 2).contiguous().flatten(0, 1)
            real = mask.flatten().repeat_interleave(self.bins)
            reduced = self._first_layer(self.reduction, by_bin.unsqueeze(2), real)  # (R · bins, reduction_dim)
            weight = self.embed.weight.view(len(self.embed.weight), -1, self.bins).transpose(1, 2).flatten(1)
            embedded = F.linear(reduced.view(len(rows), -1), weight, self.embed.bias)
        out: Tensor = self.dropout(self.activation(embedded.view(*mask.shape, -1)))
        return out

    def reduce(self, channels: Tensor) -> Tensor:
        """Apply the reduction, where there is one, to (…, C): (…, C′), C′ = `reduced_channels`."""
        out: Tensor = channels if self.reduction is None else self.reduction(channels)
        return out

    def _first_layer(self, linear: nn.Linear, rows: Tensor, mask: Tensor) -> Tensor:
        """Map (R, C, bins) with mask (R,) by `linear`, after standardising each channel where that is on."""
        if self.input_norm is not None:
            return self.input_norm.then_linear(rows, mask, linear.weight, linear.bias)
        return rows_linear(rows, mask, linear.weight, linear.bias)


class Layout(nn.Module):
    """Embed boxes and categories: position MLP and category embedding, fused by an MLP; or the position MLP alone."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        width, half = config.layout_dim, config.layout_dim // 2
        position_dim = BOX_DIM + MOTION_DIM if config.motion else BOX_DIM
        self.position = RowLayers(*linear_norm_relu(position_dim, half), *linear_norm_relu(half, width))
        self.category: OneHotEmbedding | None = None
        if config.category:
            self.category = OneHotEmbedding(NUM_CATEGORIES, half, scale_grad_by_freq=config.scale_grad_by_freq)
        self.fusion = linear_norm_relu(width + half, width) if config.category else RowLayers()
        for _ in range(config.layout_layers):
            self.fusion.extend([nn.Linear(width, width), nn.ReLU()])

    def forward(self, boxes: Tensor, categories: Tensor, mask: Tensor) -> Tensor:
        """Map boxes (…, 4), or (…, 8) with motion, and categories (…) with mask (…) to (…, d_non_app)."""
        rows, numbers, real = (
            boxes.flatten(0, -2).to(next(self.parameters()).dtype),
            categories.flatten(),
            mask.flatten(),
        )
        distinct = distinct_rows((numbers == 0) & (rows == 0).all(1), real)  # empty slots are all the same
        if distinct is None:
            out = self._each(rows, numbers, real)
        else:
            out = distinct.spread(self._each(distinct.take(rows), numbers[distinct.rows], distinct.weights))
        return out.view(*mask.shape, -1)

    def _each(self, boxes: Tensor, categories: Tensor, weights: Tensor) -> Tensor:
        """Map boxes (R, 4) and categories (R,), which count as often as their weights (R,) say, to (R, d_non_app)."""
        position = self.position.each(boxes, weights)
        if self.category is None:
            return self.fusion.each(position, weights)
        first, *others = self.fusion
        assert isinstance(first, nn.Linear)
        # W [p ; e] = W_p p + W_e e, and of e there are as many as categories.
        of_position, of_category = torch.split(first.weight, [position.shape[1], self.category.embedding_dim], dim=1)
        one_hot, table = self.category.as_product(categories)
        fused = torch.addmm(one_hot @ F.linear(table, of_category), position, of_position.t())
        return RowLayers(*others).each(fused, weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class JointFeatures:
    """Joint features and the tensors that go with them, at the T′ feature steps.

    Args:
        features: (B, T′, N, D); zero at masked slots.
        boxes: (B, T′, N, 4); zero at masked slots.
        categories: (B, T′, N) int64.
        instance_mask: (B, T′, N), True = real (all True when empty slots are not masked).
        masked: whether empty slots are; False: every slot counts as an instance.
    """

    features: Tensor
    boxes: Tensor
    categories: Tensor
    instance_mask: Tensor
    masked: bool


class JointFrontEnd(nn.Module):
    """Turn a batch into instance-centric joint features.

    Source: Yan et al. 2020, §3.2.1 and §3.3; the layout part follows Materzynska et al. 2020.
    Differs from the released code (preset `released`) in the fields that `JointConfig` names.
    """

    def __init__(self, config: JointConfig, spec: CacheSpec) -> None:
        super().__init__()
        self.config = config
        self.num_steps = spec.num_steps
        self.appearance = None if config.streams == "layout" else Appearance(config, spec)
        self.layout = None if config.streams == "appearance" else Layout(config)

    def forward(self, batch: InstanceBatch) -> JointFeatures:
        """Return the joint features of a batch; what empty slots hold changes nothing."""
        steps = step_index(batch.boxes.shape[1], self.num_steps, batch.boxes.device)
        categories = batch.categories[:, steps].long()
        mask = categories > 0 if self.config.mask_empty else torch.ones_like(categories, dtype=torch.bool)
        boxes = torch.where(mask.unsqueeze(-1), batch.boxes[:, steps], 0)
        parts = []
        if self.appearance is not None:
            parts.append(self.appearance(batch.array("instance_features"), mask))
        if self.layout is not None:
            positions = torch.cat([boxes, motion_of(boxes, categories > 0)], dim=-1) if self.config.motion else boxes
            parts.append(self.layout(positions, categories, mask))
        features = torch.cat(parts, dim=-1)
        masked = self.config.mask_empty
        if masked:
            features = keep_real(features, mask)
        return JointFeatures(features=features, boxes=boxes, categories=categories, instance_mask=mask, masked=masked)
