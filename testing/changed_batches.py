"""The same clips otherwise: in double precision, or with other content where no instance is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.streams import in_stream
from ifcar.heads.contract import InstanceBatch


def map_batch(batch: InstanceBatch, change: Callable[[str, Tensor], Tensor]) -> InstanceBatch:
    """Return a batch of what `change` makes of each array's name and values."""
    return InstanceBatch({name: change(name, value) for name, value in batch.arrays.items()})


def in_double(batch: InstanceBatch) -> InstanceBatch:
    """Return a batch with its floating-point arrays in float64."""
    return map_batch(batch, lambda _, v: v.double() if v.is_floating_point() else v)


def fill_empty_slots(batch: InstanceBatch, spec: CacheSpec, content: Callable[[Tensor], Tensor]) -> InstanceBatch:
    """Put `content` into the empty slots of all arrays but categories, which stay 0."""

    def change(name: str, value: Tensor) -> Tensor:
        stream, _, own = name.rpartition("/")
        if own == "categories" or not any(axis == in_stream(stream, "N") for axis in spec.array(name).axes):
            return value
        empty = batch.array(in_stream(stream, "categories")) == 0
        hollow = empty[:, :: empty.shape[1] // value.shape[1]].reshape(*value.shape[:3], *[1] * (value.dim() - 3))
        return torch.where(hollow, content(value), value)

    return map_batch(batch, change)


def junk(value: Tensor) -> Tensor:
    """Return random numbers of a tensor's type and shape."""
    g = torch.Generator().manual_seed(3)
    if value.is_floating_point():
        return 10 * torch.randn(value.shape, generator=g, dtype=value.dtype)
    return torch.randint(0, 100, value.shape, generator=g).to(value.dtype)


def constant(number: float) -> Callable[[Tensor], Tensor]:
    """Return what fills a tensor with a number, one of integers with the largest."""
    return lambda value: torch.full_like(value, number if value.is_floating_point() else torch.iinfo(value.dtype).max)
