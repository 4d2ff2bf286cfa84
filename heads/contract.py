"""What every head takes, returns and declares; and the registry of heads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.lacking import lacking
from ifcar.errors import CacheMismatchError, InputError, nearest
from ifcar.heads.batch import HeadOutput as HeadOutput
from ifcar.heads.batch import InstanceBatch as InstanceBatch
from ifcar.heads.batch import Task as Task
from ifcar.heads.noise import Noise, seeded
from ifcar.heads.schedules import Schedules
from ifcar.registry import Registry

MAX_WIDTH, MAX_LAYERS = 16_384, 64
LAYER_COUNTS = ("blocks", "layers")  # what names of numbers of layers end in


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
    shapes; whatever a training step remembers is a buffer that it changes in place, and what a step needs besides its
    batch is one too, not numbers sent to the device: heads of one config can be stacked under `torch.func.vmap`, and
    on a GPU a step is recorded once and replayed (`ifcar.pipelines.training.recorder`). Layers that save rows where
    shapes may follow values ask `ifcar.heads.distinct.may_shape` first.
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
    def reads(cls, config: Any) -> tuple[str, ...]:
        """Return the names of the cache's arrays that a head of this config reads, whatever losses are on.

        By default what the config says, or those parts of it that have a `reads()` of their own.

        Raises:
            InputError: neither the head nor its config says it.
        """
        parts = [config] if hasattr(config, "reads") else [getattr(config, own.name) for own in fields(config)]
        found = tuple(dict.fromkeys(name for part in parts if hasattr(part, "reads") for name in part.reads()))
        if not found:
            raise InputError(f"head {cls.name!r} ({cls.__module__}) names no array; give it a class method `reads`")
        return found

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
