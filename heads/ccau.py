"""Cooperative compositional action understanding: streams that learn together and answer alone (Rai et al. 2021).

Official code: github.com/nishantrai18/homage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.streams import in_stream, multi_spaces, space_sizes, stream_names, stream_spec
from ifcar.errors import CacheMismatchError, InputError, nearest, nearest_of
from ifcar.heads.ccau_config import CCAUConfig
from ifcar.heads.ccau_nets import PairSide, StreamNet, TaskClassifier, TaskWeights, key_of
from ifcar.heads.ccau_parts import PROJECTION_DIM, alignment, pairs_of
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch, Task, register_head, require
from ifcar.heads.distillation import distillation
from ifcar.heads.dropout import Dropout
from ifcar.heads.rows import RowNorm, add_up
from ifcar.heads.schedules import CCAU as TRAININGS


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
            multi_loss="focal",
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
        return config if config.streams else replace(config, streams=known)  # and whether `plain` names some of them

    @classmethod
    def reads(cls, config: CCAUConfig) -> tuple[str, ...]:
        """Return the map of each stream."""
        return tuple(in_stream(stream, config.array) for stream in config.names)

    @classmethod
    def check_reads(cls, config: CCAUConfig, spec: CacheSpec, losses: Collection[str] = ()) -> None:
        """Raise CacheMismatchError when the cache lacks a stream or its map."""
        known = [name for name in stream_names(spec.names()) if name]
        for name in config.streams:
            if name not in known:
                there = f"a join of {', '.join(known)}" if known else "one cache, no join of streams"
                raise CacheMismatchError(f"streams names {name!r}{nearest(name, known, '.')} This is {there}")
        super().check_reads(config, spec, losses)

    def __init__(self, config: CCAUConfig, spec: CacheSpec, num_classes: int, losses: Collection[str] = ()) -> None:
        super().__init__(config, spec, num_classes, losses)
        self.config = config
        self._check_losses_and_streams(losses)
        classes = _classes(config, spec, num_classes)
        self.spaces, self.multi = tuple(classes), frozenset(multi_spaces(spec))
        if config.distil != "off" and self.multi.issuperset(self.spaces):
            raise InputError("distil is of classes of which a clip has one; no label space that is learned has such")
        self.tasks = tuple(self._task(stream, space) for stream, space in product(config.names, self.spaces))
        width = config.embedding_dim
        self.nets = nn.ModuleDict(
            {
                key_of(name): StreamNet(config, stream_spec(spec, name), plain=name in config.plain)
                for name in config.names
            }
        )
        self.norms = nn.ModuleDict({key_of(name): RowNorm(width) for name in config.names if name not in config.plain})
        self.hidden = nn.ModuleDict({key_of(task.name): nn.Linear(width, width) for task in self.tasks})
        self.dropouts = nn.ModuleDict({key_of(task.name): Dropout(config.dropout, (width,)) for task in self.tasks})
        self.classifier = TaskClassifier(width, {task.name: classes[task.space] for task in self.tasks})
        pairs = pairs_of(config.names) if "align" in self.losses else []
        self.sides = nn.ModuleDict(
            {key_of(f"{own}-{pair[0]}-{pair[1]}"): self._side(own) for pair in pairs for own in pair}
        )
        self.weights = TaskWeights(len(self.tasks)) if config.learned_weights else None

    def _check_losses_and_streams(self, losses: Collection[str]) -> None:
        config = self.config
        for name in losses:
            if len(config.streams) < 2:
                found = ", ".join(config.streams) or "one cache"
                raise InputError(f"the loss {name!r} is between streams and there is one, {found}: --set streams=[A,B]")
        on = "distil" in losses
        require(
            (config.distil != "off") == on,
            "distil",
            config.distil,
            f"{'cooperative' if on else 'off'}, as the loss 'distil' is {'on' if on else 'off'} (--aux distil=1)",
        )

    def _task(self, stream: str, space: str) -> Task:
        config, multi = self.config, space in self.multi
        if not space:  # a cache by itself, which does not state the kind of its labels
            factor = 1.0 if config.learned_weights else config.multi_weight
            return Task(stream=stream, space=space, multi_weight=factor, loss=config.multi_loss)
        weight = config.multi_weight if multi and not config.learned_weights else 1.0
        if config.distil != "off" and not multi:
            weight *= 1 - config.distil_weight
        return Task(stream=stream, space=space, weight=weight, loss=config.multi_loss if multi else "class")

    def _side(self, stream: str) -> PairSide:
        net = self.nets[key_of(stream)]
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
            losses["distil"] = self.config.distil_weight * add_up(
                [
                    distillation(
                        [scores[task.name] for task in self.tasks if task.space == space],
                        temperature=self.config.distil_temperature,
                        detach=self.config.distil_detach,
                    )
                    for space in self.spaces
                    if space not in self.multi
                ]
            )
        return HeadOutput(logits=next(iter(scores.values())), tasks=scores, losses=losses, log_variances=self._logs())

    def explain(self, batch: InstanceBatch) -> Mapping[str, Tensor]:
        """Return of each stream "attention", p (B, N, HW), and "context", what is classified (B, D)."""
        out: dict[str, Tensor] = {}
        with torch.no_grad():
            for name in self.config.names:
                if in_stream(name, self.config.array) in batch.arrays:
                    states, contexts = self._run(name, batch)
                    out[in_stream(name, "attention")] = self.nets[key_of(name)].attention(states)  # type: ignore[operator]
                    out[in_stream(name, "context")] = contexts[:, -1]
        return out

    def _run(self, name: str, batch: InstanceBatch) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.nets[key_of(name)](batch.array(in_stream(name, self.config.array)))
        return found

    def _classify(self, task: Task, context: Tensor) -> Tensor:
        key = key_of(task.name)
        normed = self.norms[key_of(task.stream)](context) if key_of(task.stream) in self.norms else context
        hidden = self.dropouts[key](self.hidden[key](normed).relu())
        out: Tensor = self.classifier.of_task(task.name, hidden)
        return out

    def _align(self, found: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        aligned = []
        for pair in pairs_of(self.config.names):
            sides = [self.sides[key_of(f"{own}-{pair[0]}-{pair[1]}")](*found[own]) for own in pair]
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


def _classes(config: CCAUConfig, spec: CacheSpec, num_classes: int) -> dict[str, int]:
    """Return K of each label space that is learned, the run's own first."""
    known = space_sizes(spec)
    if config.spaces and not known:
        raise InputError(
            f"spaces names {', '.join(config.spaces)}; a cache by itself is learned in one label space: leave spaces "
            "out, and name it with --labels, or learn from a join"
        )
    own = next(iter(known), "")
    chosen = config.spaces or tuple(known) or (own,)
    for space in chosen:
        if space not in known and known:
            raise InputError(f"spaces names {space!r}{nearest_of(space, known)}")
    if known and own not in chosen:
        raise InputError(f"spaces are {', '.join(chosen)}; expected the run's own, {own}, among them")
    return {own: num_classes, **{space: known[space] for space in chosen if space != own}}
