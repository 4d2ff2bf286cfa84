"""Options of CCAU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifcar.cache.streams import ONLY
from ifcar.config_fields import check_fields
from ifcar.heads.contract import require, require_fraction, require_widths, require_widths_or_off


@dataclass(frozen=True, kw_only=True, slots=True)
class CCAUConfig:
    """Options of CCAU; defaults are the paper's where it states them.

    Args:
        streams: names of the streams, which share no weights; empty for a cache by itself.
        plain: those of them without recurrence and normalisation, whose linear layer alone makes the context.
        spaces: label spaces that are learned, the run's own among them; empty: all that the streams have.
        features: the map that is read: "grid" (T′, C, H, W), or "frame" (T′, C), of one cell.
        embedding_dim: D.
        num_blocks: N, blocks of time; a divisor of T′.
        attention: "shared", one of each stream, Eq. 2; "pair", for the alignment one of each stream in each pair
            beside the classifier's; "off", the mean over cells.
        temperature: τ of Eq. 2, which the paper does not state.
        similarity: of contexts in Eq. 1: "dot" or "cosine".
        align: what is told apart in Eq. 1: the "blocks" of all clips, or the "clip"s by their last block.
        align_reduction: over them: "mean", or the paper's "sum".
        align_symmetric_half: halve the sum of both directions of a pair.
        projection_dim: width of what is aligned, behind a hidden layer of 128; 0 aligns contexts themselves.
        gru_dropout: after each step of the recurrence.
        dropout: before the last layer of a classifier.
        multi_weight: λ, of the losses of label spaces with several labels a clip.
        multi_loss: their class loss: "class", that of their kind, or "focal", see `ifcar.pipelines.labels.kinds`.
        distil: "cooperative": every stream also learns the others' probabilities of the classes of which a clip has
            one, by the auxiliary loss `distil`.
        distil_temperature: τ of that.
        distil_weight: w: labels count 1 − w, the other streams w.
        distil_detach: the gradient does not reach the stream that is learned from.
        learned_weights: weigh each task's loss L as exp(−s) L + s/2 with a trained s, in place of λ.
        input_norm: standardise each channel of the cache first.
    """

    streams: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()
    features: Literal["grid", "frame"] = "grid"
    embedding_dim: int = 256
    num_blocks: int = 8
    attention: Literal["shared", "pair", "off"] = "shared"
    temperature: float = 1.0
    similarity: Literal["dot", "cosine"] = "dot"
    align: Literal["blocks", "clip"] = "blocks"
    align_reduction: Literal["mean", "sum"] = "mean"
    align_symmetric_half: bool = False
    projection_dim: int = 0
    gru_dropout: float = 0.1
    dropout: float = 0.5
    multi_weight: float = 10.0
    multi_loss: Literal["class", "focal"] = "class"
    distil: Literal["off", "cooperative"] = "off"
    distil_temperature: float = 2.5
    distil_weight: float = 0.1
    distil_detach: bool = True
    learned_weights: bool = False
    input_norm: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        require_widths(embedding_dim=self.embedding_dim, num_blocks=self.num_blocks)
        require_widths_or_off(projection_dim=self.projection_dim)
        require_fraction(gru_dropout=self.gru_dropout, dropout=self.dropout, distil_weight=self.distil_weight)
        for name in ("temperature", "distil_temperature", "multi_weight"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a number above 0")
        require(len(set(self.streams)) == len(self.streams), "streams", self.streams, "each once")
        for stream in self.plain if self.streams else ():
            require(stream in self.streams, "plain", stream, "one of " + (", ".join(self.streams) or "the streams"))

    @property
    def array(self) -> str:
        """The map that is read."""
        return f"{self.features}_features"

    @property
    def names(self) -> tuple[str, ...]:
        """The streams."""
        return self.streams or (ONLY,)

    def label(self) -> str:
        """Return the streams, where there are several."""
        return "+".join(self.streams)
