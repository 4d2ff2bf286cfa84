"""Interventions: ways to change what a trained head is shown. A new one is one more entry of `INTERVENTIONS`.

What is hidden takes its average over training views, not zero: a head never saw zeros, and its answer to them says
nothing of what it goes by. An average tells clips apart by nothing, but is a view that no clip has; so the same arrays
are also taken from another test clip, as real as any and of no use, or misleading. A head that falls under both goes by
what was hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ifcar.cache.arrays import ArraySpec, CacheSpec
from ifcar.cache.schema import Category
from ifcar.pipelines.diagnosis.scene import Scene, as_stored, by_slot, held_slots, matching_slots, nearest_times

JITTER = 0.1  # standard deviation of a box's shift, as a share of its size, and of the logarithm of its size


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervention:
    """A change of what a head is shown, with the same weights.

    Args:
        name: what tables and `--only` call it.
        does: what it does to a clip, as a clause.
        fall: what a fall of the measure means, as a clause.
        touches: whether it changes such an array of a cache.
        change: makes the changed array (B, …) of one that it touches; the array's spec and the scene are told.
        drawn: whether anything is drawn for it, so that it depends on a seed.
    """

    name: str
    does: str
    fall: str
    touches: Callable[[ArraySpec, CacheSpec], bool]
    change: Callable[[Tensor, ArraySpec, Scene], Tensor]
    drawn: bool = False


def _is_kind(array: ArraySpec, spec: CacheSpec) -> bool:
    """Whether it says what an instance is: its category, or its class of the data set."""
    return array.is_category or (array.role == "layout" and bool(array.classes))


def _is_place(array: ArraySpec, spec: CacheSpec) -> bool:
    """Whether it says where instances are: boxes, masks, whatever else is layout and no kind."""
    return array.role == "layout" and not _is_kind(array, spec)


def _is_box(array: ArraySpec, spec: CacheSpec) -> bool:
    return _is_place(array, spec) and array.axes[-2:] == ("N", 4)


def _has_times(array: ArraySpec, spec: CacheSpec) -> bool:
    return any(spec.shape(array.name)[axis] > 1 for axis in array.time_axes)


def swapped(value: Tensor, array: ArraySpec, scene: Scene) -> Tensor:
    """Return categories with subjects and objects exchanged."""
    return torch.where(value == Category.EMPTY, value, Category.SUBJECT + Category.OBJECT - value)


def unnamed(value: Tensor, array: ArraySpec, scene: Scene) -> Tensor:
    """Return kinds that say of an instance only that it is there: every one an object, of no known class."""
    if array.classes:
        return torch.full_like(value, array.empty)
    return torch.where(value == Category.EMPTY, value, Category.OBJECT)


def averaged(value: Tensor, array: ArraySpec, scene: Scene) -> Tensor:
    """Return the training average wherever there is something; empty slots stay empty."""
    average = scene.average(array).to(value)
    if not array.is_by_slot:
        return average.expand_as(value)
    slots = by_slot(value, array)
    held = held_slots(array, scene.batch)[(..., *(None,) * (slots.ndim - 3))]
    return as_stored(torch.where(held, by_slot(average, array), slots), array)


def of_another(value: Tensor, array: ArraySpec, scene: Scene) -> Tensor:
    """Return what another clip has there; instance by instance where it is by slot, see `matching_slots`.

    An instance stays where and when it is in its slot: at times at which the other one is not to be seen, that one's
    nearest value stands.
    """
    other = scene.other()
    theirs = other.array(array.name)
    if not array.is_by_slot:
        return theirs
    slots, their_slots = by_slot(value, array), by_slot(theirs, array)
    own, there = held_slots(array, scene.batch), held_slots(array, other)
    kinds = [
        batch.categories.amax(dim=1) if "categories" in batch.arrays else torch.ones_like(held[:, 0], dtype=torch.uint8)
        for batch, held in ((scene.batch, own), (other, there))
    ]
    taken = matching_slots(own.any(dim=1), kinds[0], there.any(dim=1), kinds[1]).unsqueeze(1).expand(own.shape)
    times = nearest_times(there.gather(2, taken))
    views = torch.arange(len(own), device=own.device)[:, None, None]
    held = own[(..., *(None,) * (slots.ndim - 3))]
    return as_stored(torch.where(held, their_slots[views, times, taken], slots), array)


def backwards(value: Tensor, array: ArraySpec, scene: Scene) -> Tensor:
    """Return the array with every axis of time reversed."""
    return value.flip([axis + 1 for axis in array.time_axes])


def shuffled(value: Tensor, array: ArraySpec, scene: Scene) -> Tensor:
    """Return the array with its time cut into `Scene.windows` pieces, in another order in each view, never its own.

    Arrays with more steps keep the order within a piece, so that features stay beside their boxes.
    """
    own = np.arange(scene.windows)
    ranks = []
    for rng in scene.generators():
        rank = rng.permutation(own)
        while np.array_equal(rank, own):
            rank = rng.permutation(own)
        ranks.append(rank)
    views = torch.arange(len(value), device=value.device).unsqueeze(1)
    for axis in array.time_axes:
        size = value.shape[axis + 1]
        window = np.arange(size) * scene.windows // size
        orders = np.stack([np.argsort(rank[window], kind="stable") for rank in ranks])
        by_time = value.movedim(axis + 1, 1)
        value = by_time[views, torch.from_numpy(orders).to(value.device)].movedim(1, axis + 1)
    return value


def jittered(value: Tensor, array: ArraySpec, scene: Scene) -> Tensor:
    """Return boxes whose centre and size are off by chance, by `JITTER` in each frame, inside the crop."""
    drawn = np.stack([rng.normal(scale=JITTER, size=value.shape[1:]) for rng in scene.generators()])
    noise = torch.from_numpy(drawn).to(value)
    size = value[..., 2:] * noise[..., 2:].exp()
    centre = value[..., :2] + value[..., 2:] * noise[..., :2]
    low, high = (centre - size / 2).clamp(0, 1), (centre + size / 2).clamp(0, 1)
    boxes = torch.cat([(low + high) / 2, high - low], dim=-1)
    held = by_slot(value, array).any(dim=-1)
    return as_stored(torch.where(held.unsqueeze(-1), by_slot(boxes, array), by_slot(value, array)), array)


INTERVENTIONS = (
    Intervention(
        name="categories-swapped",
        does="subjects are called objects, and objects subjects",
        fall="the head uses which instance is the hand or person",
        touches=lambda array, _: array.is_category,
        change=swapped,
    ),
    Intervention(
        name="categories-hidden",
        does="every instance is called an object, of no known class",
        fall="the head uses what the instances are said to be",
        touches=_is_kind,
        change=unnamed,
    ),
    Intervention(
        name="appearance-averaged",
        does="all features are their average over training clips",
        fall="the head uses what the clip looks like",
        touches=lambda array, _: array.role == "feature",
        change=averaged,
    ),
    Intervention(
        name="appearance-of-another",
        does="all features are another test clip's",
        fall="the head uses what the clip looks like, and is misled by another look",
        touches=lambda array, _: array.role == "feature",
        change=of_another,
        drawn=True,
    ),
    Intervention(
        name="layout-averaged",
        does="all boxes, masks and other places are their average over training clips, at all times",
        fall="the head uses where instances are and how they move",
        touches=_is_place,
        change=averaged,
    ),
    Intervention(
        name="layout-of-another",
        does="the instances take the boxes, masks and other places of another test clip's",
        fall="the head uses where instances are, and is misled by other ways",
        touches=_is_place,
        change=of_another,
        drawn=True,
    ),
    Intervention(
        name="time-reversed",
        does="features and layout run backwards",
        fall="the head uses which way time runs",
        touches=_has_times,
        change=backwards,
    ),
    Intervention(
        name="time-shuffled",
        does="features and layout come in a random order, the same for both",
        fall="the head uses the order of the frames",
        touches=_has_times,
        change=shuffled,
        drawn=True,
    ),
    Intervention(
        name="boxes-jittered",
        does=f"boxes are off by {JITTER:.0%} of their size in place and in size, each frame by itself; features stay",
        fall="the head needs boxes that are more exact than that",
        touches=_is_box,
        change=jittered,
        drawn=True,
    ),
)
