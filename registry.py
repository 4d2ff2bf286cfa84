"""One small registry class, used for heads, backbones and datasets."""

from __future__ import annotations

from typing import Generic, TypeVar

from ifcar.errors import InputError, nearest_of

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, filled by explicit imports.

    Args:
        kind: the word used in messages, for example "head".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, tuple[T, str]] = {}

    def register(self, name: str, item: T, where: str) -> T:
        """Add `item` under `name`; `where` is the module that defines it. Raises ValueError on a duplicate."""
        if name in self._items:
            raise ValueError(f"{self.kind} {name!r} is registered twice: in {self._items[name][1]} and in {where}")
        self._items[name] = (item, where)
        return item

    def get(self, name: str) -> T:
        """Return the item called `name`.

        Raises:
            InputError: no such name; the message lists the known ones and the nearest match.
        """
        if name not in self._items:
            raise InputError(f"unknown {self.kind} {name!r}{nearest_of(name, self.names())}")
        return self._items[name][0]

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._items)
