"""What every head takes, returns and declares; and the registry of heads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec, lacking
from ifcar.errors import CacheMismatchError, InputError, nearest
from ifcar.heads.noise import Noise, seeded
from ifcar.heads.schedules import Schedules
from ifcar.registry import Registry

MAX_WIDTH, MAX_LAYERS = 16_384, 64
LAYER_COUNTS = ("blocks", "layers")  # what names of numbers of layers end in


@dataclass(frozen=True, slots=True)
class InstanceBatch:
    """A batch of B views, as cached or as a live backbone produces them.

    Args:
        arrays: what the head reads, by name, each (B, …) with the axes that its `ArraySpec` states. Of the standard
            ones: instance_features (B, T′, N, C, P, P), frame_features (B, T′, C), grid_features (B, T′, C, H, W),
            masks (B, T, N, h, w), object_classes (B, T, N).
    """

    arrays: Mapping[str, Tensor]

    @property
    def boxes(self) -> Tensor:
        """(B, T, N, 4) float, (cx, cy, w, h) in [0, 1] of the crop; an empty slot is all zeros."""
        return self.array("boxes")

    @property
    def categories(self) -> Tensor:
        """(B, T, N) integer; 0 empty, 1 subject, 2 object."""
        return self.array("categories")

    def array(self, name: str) -> Tensor:
        """Return the array called `name`. Raises CacheMismatchError when the batch lacks it."""
        if name not in self.arrays:
            raise CacheMismatchError(f"this batch has {lacking(name, tuple(self.arrays))}, and name it in `reads`")
        return self.arrays[name]

    def to(self, device: torch.device) -> InstanceBatch:
        """Return the same batch on `device`."""
        return InstanceBatch({name: value.to(device, non_blocking=True) for name, value in self.arrays.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a head is trained on: one label space, answered from one stream.

    Args:
        stream: the stream, "" for that of a cache by itself.
        space: the label space, "" for the run's own.
        weight: of its class loss.
        loss: "class", the loss of the space's kind, or "focal", see `ifcar.pipelines.labels.kinds`.
    """

    stream: str = ""
    space: str = ""
    weight: float = 1.0
    loss: Literal["class", "focal"] = "class"

    @property
    def name(self) -> str:
        """STREAM/SPACE, without what is empty."""
        return "/".join(part for part in (self.stream, self.space) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOutput:
    """What a head returns.

    Args:
        logits: (B, K), the head's score.
        losses: auxiliary losses by name, each a scalar; the pipeline weighs and adds them.
        outputs: (B, O, K), logits of O outputs of which each is trained on the labels by itself, and whose mean is
            `logits`; None when there is one, `logits`.
        tasks: (B, K) logits of each of the head's `tasks` that the batch has the stream of, by the task's name; empty
            for a head of one task, whose logits are `logits`.
        log_variances: s of each task, (), by its name: its loss L counts exp(−s) L + s/2; empty where none is learned.
    """

    logits: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Tensor | None = None
    tasks: Mapping[str, Tensor] = field(default_factory=dict)
    log_variances: Mapping[str, Tensor] = field(default_factory=dict)

    def by_task(self) -> list[Tensor]:
        """Return (…, O, K) what is trained of each task: of most heads `trained()` alone."""
        return [logits.unsqueeze(-2) for logits in self.tasks.values()] or [self.trained()]

    def trained(self) -> Tensor:
        """Return (…, O, K): the logits of every output that is trained on the labels."""
        return self.logits.unsqueeze(-2) if self.outputs is None else self.outputs


class Head(nn.Module, ABC):
    """A model trained from the cache.

    Subclasses set the class attributes and register themselves in `HEADS`.

    Attributes:
        name: the registered name, equal to the file's name.
        source: paper, section and equations.
        formula: the head in one line of plain text.
        config_type: the frozen dataclass of its options.
        presets: named configs; "paper" is the default, "small" a narrow one for laptops, "tuned" what held-out clips of
            small data sets chose.
        relational: True when instances (not only the frame) decide, so that it can be fused with `i3d`.
        auxiliary: its auxiliary losses by name, with the arrays that only the loss reads. A head that has some takes
            the names of those that are on as a fourth argument, `losses`; a run's weights say which these are.
        losses: names of the auxiliary losses that are on.
        frame_level: True when the frame alone decides, so that a relational head can be fused with it.
        simple: True when it averages and relates nothing: what others are measured against where no baseline is named.
        stackable: heads of one config can be stacked, see below. A head of torch's own layers (nn.GRU, nn.Dropout,
            nn.TransformerEncoderLayer, …) says False: its runs train alone, in the same loop, and what its layers draw
            follows from the run's seed and step all the same.
        schedules: its published trainings by name and data set, where they differ from those of most heads, see
            `ifcar.heads.schedules`.
        tasks: what it is trained on, the one of `logits` first; most heads have one.
        classifier: everything that depends on the number of classes, so that few-shot learning can replace and train it
            alone. Mostly one linear layer, whose output is the logits; otherwise its output is `outputs`.

    Every initial weight comes from a module's own `reset_parameters`, under torch's seed.

    In a stackable head no shape or branch of a forward pass depends on values, only on the config and the batch's
    shapes, and whatever a training step remembers is a buffer that it changes in place: heads of one config can be
    stacked under `torch.func.vmap`, captured, and never wait for the device. Layers that save rows where shapes may
    follow values ask `ifcar.heads.distinct.may_shape` first.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str]
    config_type: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Any]]
    relational: ClassVar[bool] = True
    frame_level: ClassVar[bool] = False
    simple: ClassVar[bool] = False
    auxiliary: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    stackable: ClassVar[bool] = True
    schedules: ClassVar[Schedules] = {}
    losses: frozenset[str]
    tasks: tuple[Task, ...] = (Task(),)
    classifier: nn.Module

    @classmethod
    def for_cache(cls, config: Any, spec: CacheSpec) -> Any:
        """Return the config with what it leaves to the cache: the streams of several, for most heads nothing."""
        return config

    @classmethod
    def build(cls, config: Any, spec: CacheSpec, num_classes: int, losses: Collection[str] = ()) -> Self:
        """Build the head with these auxiliary losses on; see `__init__`."""
        cls.check_losses(losses)
        return cls(config, spec, num_classes, losses) if cls.auxiliary else cls(config, spec, num_classes)

    @classmethod
    def check_losses(cls, losses: Collection[str]) -> None:
        """Raise InputError when the head has no auxiliary loss of one of these names."""
        for name in losses:
            if name not in cls.auxiliary:
                known = (
                    f"{nearest(name, cls.auxiliary, '.')} It has: {', '.join(cls.auxiliary)}" if cls.auxiliary else ""
                )
                raise InputError(f"head {cls.name!r} has no auxiliary loss {name!r}{known}")

    @classmethod
    def arrays(cls, config: Any, losses: Collection[str] = ()) -> tuple[str, ...]:
        """Return the names of the arrays that a head of this config reads with these auxiliary losses."""
        cls.check_losses(losses)
        return tuple(dict.fromkeys((*cls.reads(config), *(name for loss in losses for name in cls.auxiliary[loss]))))

    @classmethod
    @abstractmethod
    def reads(cls, config: Any) -> tuple[str, ...]:
        """Return the names of the cache's arrays that a head of this config reads, whatever losses are on."""

    @classmethod
    def check_reads(cls, config: Any, spec: CacheSpec, losses: Collection[str] = ()) -> None:
        """Raise CacheMismatchError when the cache lacks an array that such a head reads."""
        for name in cls.arrays(config, losses):
            if name not in spec:
                raise CacheMismatchError(
                    f"head {cls.name!r} cannot read this cache, which has {lacking(name, spec.names())}"
                )

    @classmethod
    def check_pooled(cls, config: Any, spec: CacheSpec, pooled: str) -> None:
        """Raise CacheMismatchError where instances pooled so make it another function than it says.

        Args:
            config: of the head.
            spec: of the cache.
            pooled: "3", "7-max" or "mask".
        """

    def remarks(self) -> Sequence[str]:
        """Return one line on each thing that it does only in part on a cache of these dimensions; mostly none."""
        return ()

    @abstractmethod
    def __init__(self, config: Any, spec: CacheSpec, num_classes: int, losses: Collection[str] = ()) -> None:
        """Build the head for a cache's dimensions.

        Args:
            config: an instance of `config_type`.
            spec: the cache's arrays and their sizes.
            num_classes: K.
            losses: names of the auxiliary losses that are on; only where there are `auxiliary` ones.

        Raises:
            CacheMismatchError: the cache lacks an array that is read.
            InputError: the head has no auxiliary loss of such a name.
        """
        super().__init__()
        self.check_reads(config, spec, losses)
        self.num_classes, self.losses = num_classes, frozenset(losses)
        self.draws = None if self.stackable else Noise(())

    def __call__(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view; what torch's own layers draw in training follows from the noise of the step.

        Raises:
            InputError: a plugin's `forward` returns something else than it should.
        """
        values = next(iter(batch.arrays.values()), torch.empty(0))  # of none, `forward` says what it lacks
        if self.draws is None or not self.training:
            out = super().__call__(batch)
        else:
            with seeded(self.draws.drawn(len(values), values.device)):
                out = super().__call__(batch)
        return self._checked(out, len(values))

    def _checked(self, out: object, num_views: int) -> HeadOutput:
        """Return what `forward` gave, when that is scores of each view for each class."""
        found, expected = type(out).__name__, (num_views, self.num_classes)
        if isinstance(out, HeadOutput):
            logits, outputs = tuple(out.logits.shape), None if out.outputs is None else tuple(out.outputs.shape)
            if logits == expected and (outputs is None or (len(outputs) == 3 and (outputs[0], outputs[2]) == expected)):
                return out
            found = f"logits {logits}" + ("" if outputs is None else f" and outputs {outputs}")
        raise InputError(
            f"head {self.name!r} ({type(self).__module__}): forward returned {found} for {num_views} views and "
            f"{self.num_classes} classes; expected a HeadOutput with logits {expected}"
        )

    def learn_labels(self, labels: Tensor) -> None:
        """Compute statistics of the training labels and keep them as buffers; most heads need none.

        Called once before each training phase, with the labels of that phase's training clips only.

        Args:
            labels: (n, K), 1 where a clip has the class and 0 elsewhere.
        """

    @classmethod
    def label(cls, config: Any) -> str:
        """Return what names of runs and tables say of a config beside the head and its preset; mostly nothing.

        Parts of a config that have a `label()` of their own are asked for it.
        """
        parts = (getattr(config, f.name) for f in fields(config))
        return ", ".join(said for part in parts if hasattr(part, "label") and (said := part.label()))

    def explain(self, batch: InstanceBatch) -> Mapping[str, Tensor]:
        """Return what the head looks at, by name, each (B, …); nothing where there is nothing to show.

        The report draws "similarity" (B, T′, N, T′, N), "front" (B, T′ − 1, N, N) and "activity_maps" (B, K, P);
        "relations" are (B, T′, T′, N, N).
        """
        return {}

    @abstractmethod
    def forward(self, batch: InstanceBatch) -> HeadOutput:
        """Score each view."""


HEADS: Registry[type[Head]] = Registry("head")


def register_head(head: type[Head]) -> type[Head]:
    """Class decorator: add the head to `HEADS` under its name."""
    return HEADS.register(head.name, head, head.__module__)


def require(condition: bool, what: str, found: object, expected: str) -> None:
    """Raise InputError when a config field is out of range, saying which, the value and what was expected."""
    if not condition:
        raise InputError(f"{what} is {found!r}; expected {expected}")


def require_widths(**widths: int) -> None:
    """Check that every named width, or number of layers or blocks, is a whole number of at least 1, within reason."""
    for name, value in widths.items():
        most = MAX_LAYERS if name.endswith(LAYER_COUNTS) else MAX_WIDTH
        require(isinstance(value, int) and 1 <= value <= most, name, value, f"a whole number of 1 to {most:,}")


def require_widths_or_off(**widths: int) -> None:
    """Check that every named width, or number of layers, is 0 (off) or one that `require_widths` takes."""
    require_widths(**{name: value for name, value in widths.items() if value != 0})


def require_fraction(**values: float) -> None:
    """Check that every named value lies in [0, 1)."""
    for name, value in values.items():
        require(math.isfinite(value) and 0 <= value < 1, name, value, "a number in [0, 1)")
