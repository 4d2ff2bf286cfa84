"""What an intervention may look at beside the array that it changes: where instances are, averages, other clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ifcar.cache.arrays import ArraySpec, CacheSpec
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.rows import step_index


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A batch of B views that is about to be changed.

    Args:
        batch: what the head reads of the views, and their categories.
        spec: the cache's arrays.
        places: the B views' places among all that are scored; with `seed` they decide what is drawn, so that a view is
            changed in the same way whatever else is in its batch, and all its arrays alike.
        seed: of the draws.
        windows: pieces that time is cut into: the fewest steps, above one, of the arrays that the intervention changes.
        average: gives an array's average over training views, one value for all times and instances.
        other: gives the batch's arrays of another clip for each view.
    """

    batch: InstanceBatch
    spec: CacheSpec
    places: Sequence[int]
    seed: int
    windows: int
    average: Callable[[ArraySpec], Tensor]
    other: Callable[[], InstanceBatch]

    def generators(self) -> list[np.random.Generator]:
        """Return a generator for each view; every call starts them anew."""
        return [np.random.default_rng([self.seed, place]) for place in self.places]


def held_slots(array: ArraySpec, batch: InstanceBatch) -> Tensor:
    """Return bool (B, S, N), True where an instance sits in a slot, at the S times of an array (1 without time).

    Args:
        array: one that is by slot, of the batch.
        batch: its categories say where instances are; without them, or at times of another clock than T and T′, the
            array itself does.
    """
    times, value = array.time_axes, batch.array(array.name)
    if "categories" in batch.arrays and all(array.axes[k] in ("T", "T′") for k in times):
        held = batch.categories > 0
        if not times:
            return held.any(dim=1, keepdim=True)
        size = value.shape[times[0] + 1]
        return held[:, step_index(held.shape[1], size, held.device)]
    there = by_slot(value, array) != array.empty
    return there.reshape(*there.shape[:3], -1).any(dim=-1)


def by_slot(value: Tensor, array: ArraySpec) -> Tensor:
    """Return an array (B, its axes), which is by slot, as a view (B, S, N, …), S = 1 where it has no time."""
    slots = array.axes.index("N") + 1
    if not array.time_axes:
        return value.movedim(slots, 1).unsqueeze(1)
    return value.movedim((array.time_axes[0] + 1, slots), (1, 2))


def as_stored(value: Tensor, array: ArraySpec) -> Tensor:
    """Return (B, S, N, …) in the order of the array's own axes; undoes `by_slot`."""
    slots = array.axes.index("N") + 1
    if not array.time_axes:
        return value.squeeze(1).movedim(1, slots)
    return value.movedim((1, 2), (array.time_axes[0] + 1, slots))


def matching_slots(own: Tensor, own_kinds: Tensor, their: Tensor, their_kinds: Tensor) -> Tensor:
    """Return (B, N), for each of a view's slots the slot of another view whose instance takes its place.

    The k-th instance of a category takes the k-th of that category there, beginning again where there are fewer, and
    any instance where there is none of it.

    Args:
        own: (B, N), True where the slot holds an instance.
        own_kinds: (B, N) its category.
        their: (B, M), True where the other view's slot holds an instance.
        their_kinds: (B, M) its category.
    """
    alike = own_kinds.unsqueeze(2) == their_kinds.unsqueeze(1)  # (B, N, M)
    there = their.unsqueeze(1).expand_as(alike)
    order = (2 * ~there + ~alike).argsort(dim=2, stable=True)
    among = torch.where((there & alike).any(dim=2, keepdim=True), there & alike, there).sum(dim=2).clamp(min=1)
    same = own_kinds.unsqueeze(2) == own_kinds.unsqueeze(1)
    before = torch.ones_like(same[0]).tril(-1)
    rank = (same & own.unsqueeze(1) & before).sum(dim=2)
    return order.gather(2, (rank % among).unsqueeze(2)).squeeze(2)


def nearest_times(there: Tensor) -> Tensor:
    """Return (B, S, N), for each time the nearest one at which the slot of (B, S, N) holds an instance."""
    times = torch.arange(there.shape[1], device=there.device)
    away = (times.unsqueeze(0) - times.unsqueeze(1)).abs()  # (S, S)
    far = torch.where(there.unsqueeze(1), away[None, :, :, None], len(times))
    return far.argmin(dim=2)
