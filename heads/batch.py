"""What goes into a head and comes out of it: a batch of views, and what is said of them in each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ifcar.cache.lacking import lacking
from ifcar.errors import CacheMismatchError


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
        multi_weight: another factor of it where a clip has several labels.
        loss: "class", the loss of the space's kind, or "focal" where a clip has several labels, see
            `ifcar.pipelines.labels.kinds`.
    """

    stream: str = ""
    space: str = ""
    weight: float = 1.0
    multi_weight: float = 1.0
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
