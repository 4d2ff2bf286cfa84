"""Heads as checks of them need them: built, moved from their start, with losses or without dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch
from ifcar.heads.noise import Noise

NUM_CLASSES = 5


@dataclass(frozen=True)
class WithLosses:
    """A head with these of its auxiliary losses on, in the place of the head."""

    head: type[Head]
    losses: tuple[str, ...]

    def __call__(self, config: Any, spec: CacheSpec, num_classes: int) -> Head:
        """Build it."""
        return self.head.build(config, spec, num_classes, self.losses)

    @property
    def stackable(self) -> bool:
        """Whether it trains stacked."""
        return self.head.stackable

    def reads(self, config: Any) -> tuple[str, ...]:
        """Return the arrays that it reads, those of its losses too."""
        return self.head.arrays(config, self.losses)


def build(head: type[Head], config: Any, spec: CacheSpec, seed: int = 0) -> Head:
    """Build a head of `NUM_CLASSES` classes."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed also queues a call with a traceback for every device
    return head(config, spec, NUM_CLASSES)


def build_moved(head: type[Head], config: Any, spec: CacheSpec, seed: int = 0) -> Head:
    """Build a head away from its start, where layers at zero would hide what lies before them."""
    model = build(head, config, spec, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def total_loss(head: Head, batch: InstanceBatch, labels: Tensor) -> Tensor:
    """Return `loss_of` what a head says of a batch."""
    return loss_of(head(batch), labels)


def loss_of(out: HeadOutput, labels: Tensor) -> Tensor:
    """Return the sum of all that training lowers: each task's cross entropy and the auxiliary losses, unweighted."""
    scores = list(out.tasks.values()) or [out.logits]
    of_tasks = [F.cross_entropy(logits, labels % logits.shape[1]) for logits in scores]
    return sum([*of_tasks, *out.losses.values(), *out.log_variances.values()], torch.zeros(()))


def give_noise(source: Head, target: Head) -> None:
    """Draw in `target` what `source` draws, and something in the slots that only `target` has."""
    pairs = zip(source.modules(), target.modules(), strict=True)
    for first, second in ((a, b) for a, b in pairs if isinstance(a, Noise)):
        assert isinstance(second, Noise) and first.noise is not None
        noise = torch.rand(len(first.noise), *second.shape, dtype=first.noise.dtype)
        noise[tuple(slice(n) for n in first.noise.shape)] = first.noise
        second.noise = noise


def without_dropout(config: Any) -> Any:
    """Return the config with every `dropout` field, also nested ones, at 0."""
    changes: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name == "dropout":
            changes[f.name] = 0.0
        elif hasattr(value, "__dataclass_fields__"):
            changes[f.name] = without_dropout(value)
    return replace(config, **changes)


def draw_noise(head: nn.Module, num_clips: int, generator: torch.Generator | None = None) -> None:
    """Set the noise of every layer of a head that draws, in the order of its modules.

    Args:
        head: its layers keep the noise until the next call.
        num_clips: B of the batch that follows.
        generator: of the CPU, so that the noise does not depend on the device; default: torch's global one.
    """
    for module in head.modules():
        if isinstance(module, Noise):
            size = math.prod((num_clips, *module.shape))
            noise = torch.rand(size, generator=generator).view(num_clips, *module.shape)
            if module.noise is not None and module.noise.shape == noise.shape:
                module.noise.copy_(noise)  # in place: a captured graph reads it from here
            else:
                module.noise = noise.to(next(head.parameters(), noise).device)
