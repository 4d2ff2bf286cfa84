"""The layout branch of Radevski et al. 2021: the boxes of each frame, then the frames, by two transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import check_fields
from ifcar.heads.contract import InstanceBatch, require, require_fraction, require_widths
from ifcar.heads.dropout import Dropout
from ifcar.heads.embedding import OneHotEmbedding, ScaledEmbedding
from ifcar.heads.motion import MOTION_DIM, motion_of
from ifcar.heads.transformer import Encoder, causal_mask

Frames = Literal["view", "layout"]
Classes = Literal["categories", "object_classes"]
NUM_FRAME_TYPES = 5
CLS_BOX = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutConfig:
    """Options of the layout branch; defaults are the paper's.

    Args:
        frames: "view", the boxes of the view's own T frames, or "layout", those of T_L further ones (arrays
            layout_boxes, layout_categories and layout_scores).
        classes: what a box is: "categories", hand or object, or "object_classes", by the classes of the data set; these
            belong to the view's frames.
        scores: embed detection scores too; they belong to "layout" frames. Released: for Action Genome only.
        motion: embed, beside the corners, how far a box's centre moved since the last frame and how far it is from its
            mean over the clip. Not in the paper.
        hidden_dim: H, a multiple of `num_heads`; hidden layers of the encoders have 4 H.
        num_heads: of every attention.
        spatial_layers: of the encoder over a frame's boxes.
        temporal_layers: of the encoder over the frames.
        num_positions: rows of the table of positions; at least T + 1.
        dropout: after both embeddings and within the encoders.
        norm_eps: ε of LayerNorms outside the encoders; within them it is 1e-5.
        embedding_scale: of the initial embeddings of categories, positions and frame types, which torch draws with a
            deviation of 1: several times what differs from one box to another.
        attention_scale: of the attentions' initial weights. As torch draws them, a CLS token hears its boxes or frames
            so faintly that clips differ by 2 % of the last state, below the noise of dropout 0.1.
    """

    frames: Frames = "view"
    classes: Classes = "categories"
    scores: bool = False
    motion: bool = False
    hidden_dim: int = 768
    num_heads: int = 12
    spatial_layers: int = 4
    temporal_layers: int = 8
    num_positions: int = 256
    dropout: float = 0.1
    norm_eps: float = 1e-12
    embedding_scale: float = 1.0
    attention_scale: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.frames == "view":
            require(not self.scores, "scores", True, "False where frames is view, which has none")
        else:
            require(self.classes == "categories", "classes", self.classes, "categories where frames is layout")
        require_widths(
            hidden_dim=self.hidden_dim,
            num_heads=self.num_heads,
            spatial_layers=self.spatial_layers,
            temporal_layers=self.temporal_layers,
            num_positions=self.num_positions,
        )
        divides = self.hidden_dim % self.num_heads == 0
        require(divides, "hidden_dim", self.hidden_dim, f"a multiple of num_heads, {self.num_heads}")
        require_fraction(dropout=self.dropout, norm_eps=self.norm_eps)
        for name, scale in (("embedding_scale", self.embedding_scale), ("attention_scale", self.attention_scale)):
            require(0 < scale < math.inf, name, scale, "a number above 0")

    @classmethod
    def small(cls) -> LayoutConfig:
        """Return a narrow config for laptops."""
        return cls(hidden_dim=64, num_heads=4, spatial_layers=2, temporal_layers=2)

    @classmethod
    def tuned(cls) -> LayoutConfig:
        """Return `small` with what some hundred clips need: loud attention, no dropout, and how boxes move."""
        return replace(cls.small(), motion=True, dropout=0.0, embedding_scale=0.1, attention_scale=3.0)

    def reads(self) -> tuple[str, ...]:
        """Return the arrays that the branch reads."""
        if self.frames == "layout":
            return ("layout_boxes", "layout_categories", *(["layout_scores"] if self.scores else []))
        return ("boxes", "categories", *(["object_classes"] if self.classes == "object_classes" else []))


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """The released code's numbers of categories and of frame types; 0 is padding in both."""

    cls: int
    num_categories: int
    regular: int
    extract: int
    empty: int = 3


def numbers_of(config: LayoutConfig, spec: CacheSpec) -> Numbers:
    """Return the numbers of a data set: hand 1, object 2 and CLS 3; or CLS 1 and classes from 2 on."""
    if config.classes == "categories":
        return Numbers(cls=3, num_categories=4, regular=2, extract=4)
    return Numbers(cls=1, num_categories=2 + len(spec.array("object_classes").classes), regular=1, extract=2)


class BoxEmbedding(nn.Module):
    """Embed boxes: e = LN(E[category] + W (x1, y1, x2, y2 [, motion]) [+ w score])."""

    def __init__(self, config: LayoutConfig, num_categories: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        width = config.hidden_dim
        self.category_embeddings = OneHotEmbedding(num_categories, width, scale=config.embedding_scale)
        self.box_embedding = nn.Linear(4 + MOTION_DIM * config.motion, width)
        self.score_embeddings = nn.Linear(1, width) if config.scores else None
        self.layer_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout, (*shape, width))

    def forward(self, corners: Tensor, categories: Tensor, scores: Tensor | None) -> Tensor:
        """Map corners (B, T, N, 4 or, with motion, 8), categories and scores (B, T, N) to (B, T, N, H)."""
        embedded = self.category_embeddings(categories) + self.box_embedding(corners)
        if self.score_embeddings is not None:
            assert scores is not None
            embedded = embedded + self.score_embeddings(scores.unsqueeze(-1))
        out: Tensor = self.dropout(self.layer_norm(embedded))
        return out


class LayoutEncoder(nn.Module):
    """Encode a clip's layout, frame by frame and then over time.

    A frame is a CLS token, with the whole picture as its box, and its instances; empty slots are seen by none. Behind
    the last frame stands one with the CLS token alone, whose state sees all frames.

    Source: Radevski et al. 2021, spatial and temporal transformer; released code.
    """

    cls_box: Tensor

    def __init__(self, config: LayoutConfig, spec: CacheSpec) -> None:
        super().__init__()
        self.config, self.numbers = config, numbers_of(config, spec)
        num_frames, num_slots = spec.shape(config.reads()[1])
        num_frames, width = num_frames + 1, config.hidden_dim
        require(num_frames <= config.num_positions, "num_positions", config.num_positions, f"at least {num_frames}")
        self.num_frames = num_frames
        boxes = (num_frames, num_slots + 1)
        options = (width, config.num_heads, config.dropout)
        self.register_buffer("cls_box", torch.tensor(CLS_BOX), persistent=False)
        self.boxes = BoxEmbedding(config, self.numbers.num_categories, boxes)
        self.spatial = Encoder(config.spatial_layers, boxes, *options, "gelu", config.attention_scale)
        self.position_embeddings = ScaledEmbedding(config.num_positions, width, scale=config.embedding_scale)
        self.frame_type_embedding = OneHotEmbedding(NUM_FRAME_TYPES, width, scale=config.embedding_scale)
        self.layer_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout, (num_frames, width))
        self.temporal = Encoder(config.temporal_layers, (num_frames,), *options, "gelu", config.attention_scale)

    def forward(self, batch: InstanceBatch) -> Tensor:
        """Return (B, T + 1, H), each frame's state and, last, that of the whole clip."""
        boxes, hold, *_ = (batch.array(name) for name in self.config.reads())
        present = hold > 0  # (B, T, N)
        tokens = self.boxes(
            self._corners(boxes, present), self._categories(batch, present), self._scores(batch, present)
        )
        seen = self._with_cls(present, True).unsqueeze(-2).unsqueeze(-2)  # (B, T + 1, 1, 1, N + 1)
        frames = self.spatial(tokens, seen)[:, :, 0]
        num_frames = frames.shape[1]
        states = frames + self.position_embeddings.weight[:num_frames]
        states = self.dropout(self.layer_norm(states + self.frame_type_embedding(self._frame_types(present))))
        out: Tensor = self.temporal(states, causal_mask(num_frames, states.device))
        return out

    def _corners(self, boxes: Tensor, present: Tensor) -> Tensor:
        """Return (x1, y1, x2, y2), and motion where it is on, of every token, (B, T + 1, N + 1, 4 or 8); else zeros."""
        boxes = torch.where(present.unsqueeze(-1), boxes, 0).to(self.layer_norm.weight.dtype)
        half = boxes[..., 2:] / 2
        corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)
        cls = self.cls_box.to(corners.dtype)
        if self.config.motion:
            corners = torch.cat([corners, motion_of(boxes, present)], dim=-1)
            cls = F.pad(cls, (0, MOTION_DIM))
        return self._with_cls(corners, cls)

    def _categories(self, batch: InstanceBatch, present: Tensor) -> Tensor:
        """Return every token's number (B, T + 1, N + 1); an instance of no known class has padding's."""
        if self.config.classes == "categories":
            hold = batch.array(self.config.reads()[1]).long()
        else:
            known = batch.array("object_classes").long()
            hold = torch.where(known >= 0, known + 2, 0)
        return self._with_cls(torch.where(present, hold, 0), self.numbers.cls)

    def _scores(self, batch: InstanceBatch, present: Tensor) -> Tensor | None:
        """Return every token's score (B, T + 1, N + 1), 1 for CLS; None where scores are off."""
        if not self.config.scores:
            return None
        scores = torch.where(present, batch.array("layout_scores"), 0).to(self.layer_norm.weight.dtype)
        return self._with_cls(scores, 1.0)

    @staticmethod
    def _with_cls(values: Tensor, cls: Tensor | float) -> Tensor:
        """Put the CLS token in front of each frame's slots (B, T, N, …), and a frame of it alone behind the last."""
        padded = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)
        first = torch.zeros_like(padded[:, :, :1]) + cls
        return torch.cat([first.to(values.dtype), padded], dim=2)

    def _frame_types(self, present: Tensor) -> Tensor:
        """Return (B, T + 1): regular, or empty where a frame has no instance, and extract last."""
        types = torch.where(present.any(-1), self.numbers.regular, self.numbers.empty)
        return torch.cat([types, torch.full_like(types[:, :1], self.numbers.extract)], dim=1)
