"""Label spaces over instances, from what an adapter knows of each instance of a clip."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ifcar.cache.protocols import TARGET_TYPES, UNKNOWN, KindName, LabelSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledInstance:
    """An instance and its labels.

    Args:
        name: its id, no other instance's.
        classes: class numbers; one where labels are single.
    """

    name: str
    classes: Collection[int]


def instance_space(
    name: str,
    kind: KindName,
    classes: Sequence[str],
    clip_ids: Sequence[str],
    instances: Mapping[str, Sequence[LabelledInstance]],
) -> LabelSpace:
    """Return the labels of the instances of these clips, in their slots.

    Args:
        name: of the label space.
        kind: "single" or "multi".
        classes: K class names.
        clip_ids: the cache's clips, in order.
        instances: of a clip, by its id, in the order of its tracks.
    """
    num_slots = max((len(instances[clip_id]) for clip_id in clip_ids), default=0)
    more = (len(classes),) if kind == "multi" else ()
    targets = np.full((len(clip_ids), num_slots, *more), UNKNOWN, np.dtype(TARGET_TYPES[kind]))
    names = np.full((len(clip_ids), num_slots), "", object)
    for clip, clip_id in enumerate(clip_ids):
        for slot, instance in enumerate(instances[clip_id]):
            names[clip, slot] = instance.name
            if kind == "multi":
                targets[clip, slot] = 0
                targets[clip, slot, list(instance.classes)] = 1
            else:
                (targets[clip, slot],) = instance.classes
    return LabelSpace(
        name=name, kind=kind, classes=tuple(classes), targets=targets, over="instance", instance_ids=names
    )
