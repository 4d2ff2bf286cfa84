"""Protocol tables over clips, from what an adapter knows of each clip by its id."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import UNKNOWN, LabelSpace, ProtocolTable, Unlabelled
from ifcar.cache.schema import Split
from ifcar.counts import count_of


def protocol_table(
    name: str,
    spaces: Sequence[LabelSpace],
    clip_ids: Sequence[str],
    split: Mapping[str, Split],
    groups: Mapping[str, str] | None = None,
    group_kind: str = "",
) -> ProtocolTable:
    """Return a protocol over these clips.

    Args:
        name: the protocol's name.
        spaces: the labels of these clips, those that a run learns where it names none first.
        clip_ids: the cache's clips, in order.
        split: the part of a clip, by its id; a clip that it lacks is in none.
        groups: the group of a clip, by its id; used to hold out whole groups, see `ProtocolTable`.
        group_kind: what a group is.
    """
    parts = np.array([split.get(clip_id, Split.NONE) for clip_id in clip_ids], np.uint8)
    own = np.full(len(clip_ids), -1, np.int32)
    numbers: dict[str, int] = {}
    for place, clip_id in enumerate(clip_ids):
        if groups is not None and clip_id in groups:
            own[place] = numbers.setdefault(groups[clip_id], len(numbers))
    return ProtocolTable(
        name=name,
        spaces=tuple(spaces),
        split=parts,
        groups=own,
        group_names=tuple(numbers),
        group_kind=group_kind if numbers else "",
    )


def single_labels(classes: Sequence[str], clip_ids: Sequence[str], labels: Mapping[str, int]) -> LabelSpace:
    """Return the class of every clip; unknown where there is none.

    Args:
        classes: K class names.
        clip_ids: the cache's clips, in order.
        labels: the class of a clip, by its id.
    """
    targets = np.array([labels.get(clip_id, UNKNOWN) for clip_id in clip_ids], np.int16)
    return LabelSpace(kind="single", classes=tuple(classes), targets=targets)


def multi_labels(
    classes: Sequence[str],
    clip_ids: Sequence[str],
    labels: Mapping[str, Collection[int]],
    unlabelled: Unlabelled = "last",
) -> LabelSpace:
    """Return the classes, any number, of every clip; none where there are no labels, see `single_labels`."""
    targets = np.zeros((len(clip_ids), len(classes)), np.uint8)
    for place, clip_id in enumerate(clip_ids):
        targets[place, list(labels.get(clip_id, ()))] = 1
    return LabelSpace(kind="multi", classes=tuple(classes), targets=targets, unlabelled=unlabelled)


def incomplete(table: ProtocolTable, split: Mapping[str, Split], clip_ids: Sequence[str]) -> list[str]:
    """Return a line each for clips of a protocol that are not in the data, and for classes without a training clip."""
    targets = table.labels.targets[table.split == Split.TRAIN]
    trained = np.nonzero(targets == 1)[1] if table.labels.kind == "multi" else targets
    return absent_clips(table.name, split, clip_ids) + empty_class_notes(table.name, table.labels.classes, trained)


def absent_clips(name: str, split: Mapping[str, Split], clip_ids: Sequence[str]) -> list[str]:
    """Return one line for each part of a protocol that lists clips which are not in the data."""
    known = set(clip_ids)
    notes = []
    for part in (Split.TRAIN, Split.TEST):
        absent = sum(own == part and clip_id not in known for clip_id, own in split.items())
        if absent:
            notes.append(f"protocol {name}, {part.name.lower()}: {count_of(absent, 'clip is')} not in the data")
    return notes


def empty_class_notes(name: str, classes: Sequence[str], targets: NDArray[np.integer]) -> list[str]:
    """Return one line when some classes have no training clip while others do."""
    empty = sorted(set(range(len(classes))) - set(targets.tolist()))
    if not empty or not len(targets):
        return []
    first = classes[empty[0]]
    count = count_of(len(empty), "has", of=f"{len(classes)} classes")
    return [f"protocol {name}: {count} no training clip, the first: {first!r}"]
