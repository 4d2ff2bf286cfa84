"""A protocol over the clips of all parts of a cache, of the ones that each part has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import UNKNOWN, LabelSpace, ProtocolTable, protocol_digest
from ifcar.errors import CacheMismatchError


def merged_protocol(tables: Mapping[str, ProtocolTable]) -> ProtocolTable:
    """Return a protocol over the clips of all parts.

    Args:
        tables: the protocol in each part, by where that is.

    Raises:
        CacheMismatchError: two parts have other label spaces, classes or kinds of groups, or were read from other
            files.
    """
    (where, first), *others = tables.items()
    for other, table in others:
        if table.whole != first.whole:
            raise CacheMismatchError(
                f"protocol {first.name!r} was read from other files for {where} than for {other}; run the `ifcar "
                "extract` of both again with the same, which brings protocols up to date"
            )
        if _facts(table) != _facts(first):
            raise CacheMismatchError(
                f"protocol {first.name!r} has other label spaces, classes or kinds of groups in {where} than in {other}"
            )
    names = list(dict.fromkeys(name for table in tables.values() for name in table.group_names))
    place = {name: number for number, name in enumerate(names)}
    groups = []
    for table in tables.values():
        numbers = np.array([*(place[name] for name in table.group_names), -1], np.int32)
        groups.append(numbers[table.groups])  # −1, no group, is the last
    spaces = zip(*(table.spaces for table in tables.values()), strict=True)
    merged = replace(
        first,
        whole="",
        spaces=tuple(_merged_space(list(own)) for own in spaces),
        split=np.concatenate([table.split for table in tables.values()]),
        groups=np.concatenate(groups),
        group_names=tuple(names),
    )
    if first.whole and protocol_digest(merged) != first.whole:
        raise CacheMismatchError(
            f"protocol {first.name!r}: that of the parts together is not the one each is a part of"
        )
    return merged


def _merged_space(parts: Sequence[LabelSpace]) -> LabelSpace:
    if parts[0].instance_ids is None:
        return replace(parts[0], targets=np.concatenate([own.targets for own in parts]))
    slots = max(own.targets.shape[1] for own in parts)
    return replace(
        parts[0],
        targets=np.concatenate([_with_slots(own.targets, slots, UNKNOWN) for own in parts]),
        instance_ids=np.concatenate([_with_slots(own.instance_ids, slots, "") for own in parts]),
    )


def _with_slots(values: NDArray[Any] | None, slots: int, empty: Any) -> NDArray[Any]:
    """Return values (n, N, …) with so many slots, the further ones empty."""
    assert values is not None
    filled = np.full((len(values), slots, *values.shape[2:]), empty, values.dtype)
    filled[:, : values.shape[1]] = values
    return filled


def _facts(table: ProtocolTable) -> tuple[Any, ...]:
    spaces = [(own.name, own.kind, own.classes, own.over, own.unlabelled, own.targets.dtype) for own in table.spaces]
    return table.group_kind, spaces
