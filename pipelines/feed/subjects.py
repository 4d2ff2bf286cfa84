"""Batches that ask about one instance of each clip: its slot comes first and holds the subject.

Heads score clips. Where instances have labels, an example is a view and one of its slots: the slot moves to the front
and is the only subject (category 1), all others follow as objects (2), the nearest first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.schema import Category
from ifcar.heads.contract import InstanceBatch


def slot_order(slots: NDArray[np.int64], boxes: NDArray[Any]) -> NDArray[np.int64]:
    """Return (n, N) the slots of n views: the one that is asked about, then the others, the nearest first.

    Args:
        slots: (n,) which are asked about.
        boxes: (n, T, N, 4) (cx, cy, w, h), zeros where a slot is empty. The distance is that of the centres, the mean
            over the frames that show both; slots that are never seen together come last.
    """
    own = np.take_along_axis(boxes, slots[:, None, None, None], axis=2)
    both = np.logical_and(boxes.any(axis=3), own.any(axis=3))
    squares = ((boxes[..., :2] - own[..., :2]) ** 2).sum(axis=3, where=both[..., None])
    distances = np.where(both.any(axis=1), squares.sum(axis=1) / np.maximum(1, both.sum(axis=1)), np.inf)
    np.put_along_axis(distances, slots[:, None], -1.0, axis=1)
    return np.argsort(distances, axis=1, kind="stable")


def grouped(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the places at which each number stands, in the order in which the numbers first appear."""
    _, firsts, kinds = np.unique(numbers, return_index=True, return_inverse=True)
    places = np.split(np.argsort(kinds, kind="stable"), np.cumsum(np.bincount(kinds))[:-1])
    return [places[kind] for kind in np.argsort(firsts)]


def ask_about(
    order: Tensor | None, batch: InstanceBatch, spec: CacheSpec, views: Tensor | None = None
) -> InstanceBatch:
    """Return the batch with each view's slots in an order of its own, the first one the only subject.

    Args:
        order: (…, N) slot numbers, see `slot_order`; None leaves the batch as it is.
        batch: arrays (…, axes of the array), with the same leading axes.
        spec: says which of their axes are the N slots.
        views: (n,) which view of the batch each of n orders is about; None: each view has one.

    Returns:
        Arrays of the same shapes, or with n in the place of the views; those that do not change are the same tensors.
    """
    if order is None:
        return batch
    arrays = dict(batch.arrays)
    if views is not None:
        arrays = {name: value.index_select(0, views.to(value.device)) for name, value in arrays.items()}
    for name, value in arrays.items():
        axes = spec.array(name).axes
        if "N" in axes:
            arrays[name] = _reordered(value, order.to(value.device), order.ndim - 1 + axes.index("N"))
        if spec.array(name).is_category:
            arrays[name] = _one_subject(arrays[name])
    return InstanceBatch(arrays)


def _reordered(value: Tensor, order: Tensor, axis: int) -> Tensor:
    """Return `value` with its slots, on `axis`, in the order (…, N) of their view; whole slots are copied."""
    count, num = order.shape[:-1].numel(), order.shape[-1]
    steps = math.prod(value.shape[:axis]) // max(1, count)
    first = num * torch.arange(count * steps, device=value.device).view(count, steps, 1)
    places = first + order.reshape(count, 1, num)
    return value.reshape(count * steps * num, -1).index_select(0, places.flatten()).view(value.shape)


def _one_subject(categories: Tensor) -> Tensor:
    """Return categories (…, N) that make the instance in slot 0 the subject and all others objects."""
    kinds = torch.full_like(categories, Category.OBJECT)
    kinds[..., 0] = Category.SUBJECT
    return torch.where(categories != Category.EMPTY, kinds, categories)
