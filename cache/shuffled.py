"""Segments paired with those of other recordings: a control, in which streams have nothing to say to one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.errors import InputError

_SEED = 0


def other_recordings(tables: Mapping[str, ProtocolTable], segments: Sequence[str]) -> list[int]:
    """Return for each segment the place of one of another recording, of the same part.

    What any protocol trains on and none tests on is one part, and what is tested on alone another; where protocols
    disagree, as when each leaves another subject out, a part is what is alike in all of them.

    The recordings of a part, in an order that is drawn once, lend their segments to the one before each, the first to
    the last; segments keep their order, and a longer recording goes through the other's segments again.

    Args:
        tables: the protocols over the segments, by name; a recording is a group of the first that has groups, and
            a segment without a group is one by itself.
        segments: their names.

    Raises:
        InputError: a part has one recording alone.
    """
    grouped = next((own for own in tables.values() if (own.groups >= 0).any()), None)
    numbers = [-1] * len(segments) if grouped is None else grouped.groups.tolist()
    names = ["" if grouped is None or number < 0 else grouped.group_names[number] for number in numbers]
    parts: dict[tuple[int, ...], dict[str, list[int]]] = {}
    for place, segment in enumerate(segments):
        splits = tuple(int(table.split[place]) for table in tables.values())
        used = {*splits} - {int(Split.NONE)}
        key = tuple(used) if len(used) == 1 else splits
        parts.setdefault(key, {}).setdefault(names[place] or segment, []).append(place)
    found = list(range(len(segments)))
    rng = np.random.default_rng(_SEED)
    for recordings in parts.values():
        if len(recordings) < 2:
            alone = segments[next(iter(recordings.values()))[0]]
            raise InputError(f"segment {alone!r} is of the only recording of its part: none can stand in its place")
        order = [str(name) for name in rng.permutation(list(recordings))]
        for name, other in zip(order, [*order[1:], order[0]], strict=True):
            lent = recordings[other]
            for number, place in enumerate(recordings[name]):
                found[place] = lent[number % len(lent)]
    return found
