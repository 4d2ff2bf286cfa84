"""What counts as plain data when a file of unknown origin is read, and what it may cost to use it."""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_DEPTH = 64
MAX_VALUES = 100_000_000  # met by a reader who walks through everything, shared parts as often as they occur
_MAX_KEY_LENGTH = 16
_LARGEST_KEY = 1 << 60  # Python hashes integers modulo 2⁶¹ − 1
_SCALARS = frozenset({str, bytes, bytearray, int, float, bool, complex, type(None)})


class RefusedError(Exception):
    """A pickle asks for something that is not plain data; the text completes "FILE: …"."""


def make_set(items: list[object]) -> set[object]:
    """Return a set of elements that hash in bounded time."""
    for item in items:
        check_key(item)
    return set(items)


def make_dict(items: list[object], into: dict[object, object] | None = None) -> dict[object, object]:
    """Return a mapping of alternating keys and values, whose keys hash in bounded time."""
    result = {} if into is None else into
    if len(items) % 2:
        raise RefusedError("holds a key without a value")
    for key in items[::2]:
        check_key(key)
    result.update(zip(items[::2], items[1::2], strict=True))
    return result


def check_key(key: Any) -> None:
    """Refuse keys that cost much to hash, or that can all be made to collide."""
    kind = type(key)
    if kind in (str, float, bool, bytes) or key is None or isinstance(key, np.generic):
        return
    if kind is int and abs(key) < _LARGEST_KEY:
        return
    if kind is tuple and len(key) <= _MAX_KEY_LENGTH and all(type(part) is not tuple for part in key):
        for part in key:
            check_key(part)
        return
    raise RefusedError(f"uses a {kind.__name__} as a key; only text, numbers and short tuples of them are read")


def check_values(root: object) -> None:
    """Refuse depth, cycles, shared parts that unfold without end, and whatever is no plain value.

    Containers of scalars alone are counted where they are met; the others are walked once each.
    """
    sizes: dict[int, int] = {}
    entered: set[int] = set()
    walk: list[tuple[object, bool]] = [(root, False)]
    while walk:
        value, is_done = walk.pop()
        key = id(value)
        children = _children(value)
        inner = [child for child in children if type(child) not in _SCALARS]
        if is_done:
            entered.discard(key)
            sizes[key] = 1 + len(children) - len(inner) + sum(sizes.get(id(c)) or 1 + len(_children(c)) for c in inner)
            if sizes[key] > MAX_VALUES:
                raise RefusedError(f"unfolds to more than {MAX_VALUES:,} values")
        elif key in entered:
            raise RefusedError("holds a container that contains itself")
        elif inner and key not in sizes:
            entered.add(key)
            if len(entered) > MAX_DEPTH:
                raise RefusedError(f"is nested more than {MAX_DEPTH} levels deep")
            walk.append((value, True))
            walk += [(child, False) for child in inner]


def _children(value: Any) -> list[object] | tuple[object, ...]:
    kind = type(value)
    if kind is dict:
        return list(value.values())
    if kind in (list, tuple):
        return value  # type: ignore[no-any-return]
    if kind in (set, frozenset):
        return list(value)
    if kind in _SCALARS or isinstance(value, np.ndarray | np.generic):
        return ()
    raise RefusedError(f"holds a {kind.__name__}; only plain containers, numbers, text and numeric arrays are read")
