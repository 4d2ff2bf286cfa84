"""Cooperative compositional action understanding: streams that learn together and answer alone (Rai et al. 2021).

Official code: github.com/nishantrai18/homage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.streams import ONLY, in_stream, space_sizes, stream_names, stream_spec
from ifcar.errors import InputError, nearest
from ifcar.heads.ccau_parts import (
    PROJECTION_DIM,
    BlockEncoder,
    CellAttention,
    ConvGRU,
    UniformAttention,
    alignment,
    distillation,
    pairs_of,
    weighted,
)
from ifcar.heads.contract import (
    Head,
    HeadOutput,
    InstanceBatch,
    Task,
    register_head,
    require,
    require_fraction,
    require_widths,
    require_widths_or_off,
)
from ifcar.heads.dropout import Dropout
from ifcar.heads.rows import RowNorm
from ifcar.heads.schedules import CCAU as TRAININGS


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
        further_weight: λ, of the losses of label spaces beside the run's own.
        further_loss: their class loss: "class", that of their kind, or "focal", see `ifcar.pipelines.labels.kinds`.
        distil: "cooperative": every stream also learns the others' probabilities of the run's own labels, by the
            auxiliary loss `distil`.
        distil_temperature: τ of that.
        distil_weight: w: labels count 1 − w, the other streams w.
        distil_detach: the gradient does not reach the stream that is learned from.
        learned_weights: weigh each task's loss L as exp(−s) L + s/2 with a trained s.
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
    further_weight: float = 10.0
    further_loss: Literal["class", "focal"] = "class"
    distil: Literal["off", "cooperative"] = "off"
    distil_temperature: float = 2.5
    distil_weight: float = 0.1
    distil_detach: bool = True
    learned_weights: bool = False
    input_norm: bool = True

    def __post_init__(self) -> None:
        require_widths(embedding_dim=self.embedding_dim, num_blocks=self.num_blocks)
        require_widths_or_off(projection_dim=self.projection_dim)
        require_fraction(gru_dropout=self.gru_dropout, dropout=self.dropout, distil_weight=self.distil_weight)
        for name in ("temperature", "distil_temperature", "further_weight"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a number above 0")
        require(len(set(self.streams)) == len(self.streams), "streams", self.streams, "each once")
        for stream in self.plain:
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


class StreamNet(nn.Module):
    """One stream from its map to the states of its cells and the context of each block."""

    def __init__(self, config: CCAUConfig, spec: CacheSpec, *, plain: bool) -> None:
        super().__init__()
        self.plain = plain
        width, blocks = config.embedding_dim, 1 if plain else config.num_blocks
        height, across = (spec.grid_size or (1, 1)) if config.features == "grid" else (1, 1)
        self.num_cells = height * across
        self.encoder = BlockEncoder(spec, blocks, width, input_norm=config.input_norm, rectify=not plain)
        self.gru = None if plain else ConvGRU(width, config.gru_dropout, blocks, self.num_cells)
        attends = config.attention != "off" and self.num_cells > 1
        self.attention = CellAttention(width, self.num_cells, config.temperature) if attends else UniformAttention()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states (B, N, HW, D) and the contexts (B, N, D) of a map (B, T′, C[, H, W])."""
        states: Tensor = self.encoder(features)
        if self.gru is not None:
            states = self.gru(states)
        return states, weighted(states, self.attention(states))


class PairSide(nn.Module):
    """A stream's context for the alignment with one other stream: an attention and a projection of its own."""

    def __init__(self, config: CCAUConfig, net: StreamNet) -> None:
        super().__init__()
        width = config.embedding_dim
        own = config.attention == "pair" and net.num_cells > 1
        self.attention = CellAttention(width, net.num_cells, config.temperature) if own else None
        self.projection = (
            nn.Sequential(nn.Linear(width, PROJECTION_DIM), nn.ReLU(), nn.Linear(PROJECTION_DIM, config.projection_dim))
            if config.projection_dim
            else nn.Identity()
        )

    def forward(self, states: Tensor, contexts: Tensor) -> Tensor:
        """Map states (B, N, HW, D) and the classifier's contexts (B, N, D) to what is aligned, (B, N, E)."""
        if self.attention is not None:
            contexts = weighted(states, self.attention(states))
        out: Tensor = self.projection(contexts)
        return out


class TaskClassifier(nn.Linear):
    """The last layer of every task; called, that of the first.

    Args:
        width: D.
        classes: K of each task by its name, the first first.
    """

    def __init__(self, width: int, classes: Mapping[str, int]) -> None:
        self.first, *others = classes
        super().__init__(width, classes[self.first])
        self.further = nn.ModuleDict({_key(name): nn.Linear(width, classes[name]) for name in others})

    def of_task(self, name: str, hidden: Tensor) -> Tensor:
        """Return the logits (B, K) of a task from what comes before its last layer, (B, D)."""
        out: Tensor = self(hidden) if name == self.first else self.further[_key(name)](hidden)
        return out


class TaskWeights(nn.Module):
    """s of each task, by which its loss L weighs exp(−s) L + s/2."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.empty(num_tasks))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every s to 0."""
        nn.init.zeros_(self.log_variance)


@register_head
class CCAU(Head):
    """Score each label space by each stream: blocks of time, ConvGRU over them, attention over cells, classifier.

    In training the auxiliary loss `align` draws together what the streams say of the same moment, and `distil` what
    they answer. A stream scores the same whether others are there or not.

    Source: Rai et al. 2021, §4, Eq. 1–2; the ConvGRU and the layers of α are the released code's.
    """

    name = "ccau"
    source = "Rai et al. 2021 (Home Action Genome), §4, Eq. 1–2"
    formula = "h_t = ConvGRU(z_≤t),  c_t = Σ softmax(α(h_t)/τ) h_t,  logits = MLP(BN(c_N)) of each space"
    config_type = CCAUConfig
    presets: ClassVar[Mapping[str, CCAUConfig]] = {
        "paper": CCAUConfig(),
        "released": CCAUConfig(
            attention="pair",
            align="clip",
            align_symmetric_half=True,
            projection_dim=PROJECTION_DIM,
            further_loss="focal",
            dropout=0.75,
        ),
        "small": CCAUConfig(embedding_dim=64, num_blocks=4),
    }
    relational = False
    frame_level = True
    auxiliary: ClassVar[Mapping[str, tuple[str, ...]]] = {"align": (), "distil": ()}
    schedules = TRAININGS
    classifier: TaskClassifier

    @classmethod
    def for_cache(cls, config: CCAUConfig, spec: CacheSpec) -> CCAUConfig:
        """Return the config with all streams of the cache where it names none."""
        known = tuple(name for name in stream_names(spec.names()) if name)
        return config if config.streams else replace(config, streams=known)

    @classmethod
    def reads(cls, config: CCAUConfig) -> tuple[str, ...]:
        """Return the map of each stream."""
        return tuple(in_stream(stream, config.array) for stream in config.names)

    def __init__(self, config: CCAUConfig, spec: CacheSpec, num_classes: int, losses: Collection[str] = ()) -> None:
        super().__init__(config, spec, num_classes, losses)
        self.config = config
        self._check_losses_and_streams(losses)
        classes = _classes(config, spec, num_classes)
        self.spaces = tuple(classes)
        self.tasks = tuple(self._task(stream, space) for stream, space in product(config.names, self.spaces))
        width = config.embedding_dim
        self.nets = nn.ModuleDict(
            {
                _key(name): StreamNet(config, stream_spec(spec, name), plain=name in config.plain)
                for name in config.names
            }
        )
        self.norms = nn.ModuleDict({_key(name): RowNorm(width) for name in config.names if name not in config.plain})
        self.hidden = nn.ModuleDict({_key(task.name): nn.Linear(width, width) for task in self.tasks})
        self.dropouts = nn.ModuleDict({_key(task.name): Dropout(config.dropout, (width,)) for task in self.tasks})
        self.classifier = TaskClassifier(width, {task.name: classes[task.space] for task in self.tasks})
        pairs = pairs_of(config.names) if "align" in self.losses else []
        self.sides = nn.ModuleDict(
            {_key(f"{own}-{pair[0]}-{pair[1]}"): self._side(own) for pair in pairs for own in pair}
        )
        self.weights = TaskWeights(len(self.tasks)) if config.learned_weights else None

    def _check_losses_and_streams(self, losses: Collection[str]) -> None:
        config = self.config
        for name in losses:
            require(len(config.streams) > 1, "streams", list(config.streams), f"several, for the loss {name!r}")
        on = "distil" in losses
        require(
            (config.distil != "off") == on,
            "distil",
            config.distil,
            f"{'cooperative' if on else 'off'}, as the loss 'distil' is {'on' if on else 'off'} (--aux distil=1)",
        )

    def _task(self, stream: str, space: str) -> Task:
        further = space != self.spaces[0]
        weight = self.config.further_weight if further else 1.0
        if self.config.distil != "off" and not further:
            weight *= 1 - self.config.distil_weight
        return Task(stream=stream, space=space, weight=weight, loss=self.config.further_loss if further else "class")

    def _side(self, stream: str) -> PairSide:
        net = self.nets[_key(stream)]
        assert isinstance(net, StreamNet)
        return PairSide(self.config, net)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view.

        Args:
            batch: of each stream that is there, grid_features (B, T′, C, H, W) or frame_features (B, T′, C); a
                stream's arrays are called STREAM/grid_features.

        Returns:
            logits (B, K) of the first stream that is there, tasks' logits by STREAM/SPACE; losses {"align": (),
            "distil": ()} where they are on.

        Raises:
            CacheMismatchError: no stream is there.
        """
        there = [name for name in self.config.names if in_stream(name, self.config.array) in batch.arrays]
        found = {name: self._run(name, batch) for name in there or self.config.names}
        scores = {
            task.name: self._classify(task, found[task.stream][1][:, -1]) for task in self.tasks if task.stream in found
        }
        losses: dict[str, Tensor] = {}
        if "align" in self.losses and self.training:
            losses["align"] = self._align(found)
        if "distil" in self.losses and self.training:
            own = [scores[task.name] for task in self.tasks if task.space == self.spaces[0]]
            told = distillation(own, temperature=self.config.distil_temperature, detach=self.config.distil_detach)
            losses["distil"] = self.config.distil_weight * told
        return HeadOutput(logits=next(iter(scores.values())), tasks=scores, losses=losses, log_variances=self._logs())

    def explain(self, batch: InstanceBatch) -> Mapping[str, Tensor]:
        """Return of each stream "attention", p (B, N, HW), and "context", what is classified (B, D)."""
        out: dict[str, Tensor] = {}
        with torch.no_grad():
            for name in self.config.names:
                if in_stream(name, self.config.array) in batch.arrays:
                    states, contexts = self._run(name, batch)
                    out[in_stream(name, "attention")] = self.nets[_key(name)].attention(states)  # type: ignore[operator]
                    out[in_stream(name, "context")] = contexts[:, -1]
        return out

    def _run(self, name: str, batch: InstanceBatch) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.nets[_key(name)](batch.array(in_stream(name, self.config.array)))
        return found

    def _classify(self, task: Task, context: Tensor) -> Tensor:
        key = _key(task.name)
        normed = self.norms[_key(task.stream)](context) if _key(task.stream) in self.norms else context
        hidden = self.dropouts[key](self.hidden[key](normed).relu())
        out: Tensor = self.classifier.of_task(task.name, hidden)
        return out

    def _align(self, found: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        aligned = []
        for pair in pairs_of(self.config.names):
            sides = [self.sides[_key(f"{own}-{pair[0]}-{pair[1]}")](*found[own]) for own in pair]
            if self.config.align == "clip":
                aligned.append(tuple(side[:, -1] for side in sides))
            else:
                require(sides[0].shape[1] == sides[1].shape[1], "align", "blocks", "clip, for streams without blocks")
                aligned.append(tuple(side.flatten(0, 1) for side in sides))
        return alignment(
            aligned,
            similarity=self.config.similarity,
            reduction=self.config.align_reduction,
            symmetric_half=self.config.align_symmetric_half,
        )

    def _logs(self) -> Mapping[str, Tensor]:
        if self.weights is None:
            return {}
        names = [task.name for task in self.tasks]
        return dict(zip(names, self.weights.log_variance.unbind(), strict=True))


def _key(name: str) -> str:
    """Return a name as a key of modules, which may not be empty or hold a dot."""
    return name.replace(".", "_").replace("/", "-") or "only"


def _classes(config: CCAUConfig, spec: CacheSpec, num_classes: int) -> dict[str, int]:
    """Return K of each label space that is learned, the run's own first."""
    known = space_sizes(spec)
    own = next(iter(known), "")
    chosen = config.spaces or tuple(known) or (own,)
    for space in chosen:
        if space not in known and known:
            raise InputError(f"spaces names {space!r}{nearest(space, known)}; the streams have {', '.join(known)}")
    if known and own not in chosen:
        raise InputError(f"spaces are {', '.join(chosen)}; expected the run's own, {own}, among them")
    return {own: num_classes, **{space: known[space] for space in chosen if space != own}}
