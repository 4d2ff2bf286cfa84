"""One small registry class, used for heads, backbones and datasets."""

from __future__ import annotations

from typing import Generic, TypeVar

from ifcar.errors import InputError, nearest_of
from ifcar.plugins import load_plugins, origin, warn_of

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, filled by explicit imports and by plugins.

    Args:
        kind: the word used in messages, for example "head".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, tuple[T, str]] = {}
        self._advice: dict[str, str] = {}

    def register(self, name: str, item: T, where: str) -> T:
        """Add `item` under `name`; `where` is the module that defines it. Raises ValueError on a duplicate."""
        if name in self._items:
            raise ValueError(f"{self.kind} {name!r} is registered twice: in {self._items[name][1]} and in {where}")
        self._items[name] = (item, where)
        return item

    def get(self, name: str) -> T:
        """Return the item called `name`.

        Raises:
            InputError: no such name; the message lists the known ones and the nearest match, and says how to get it
                where that is known.
        """
        failures = [] if name in self._items else load_plugins(self.kind)
        if name not in self._items:
            said = f": {self._advice[name]}" if name in self._advice else nearest_of(name, sorted(self._items))
            raise InputError("; ".join([f"unknown {self.kind} {name!r}{said}", *failures]))
        for failure in failures:
            warn_of(failure)
        return self._items[name][0]

    def names(self) -> list[str]:
        """Return the registered names, sorted, those of plugins too."""
        for failure in load_plugins(self.kind):
            warn_of(failure)
        return sorted(self._items)

    def origin(self, name: str) -> dict[str, str]:
        """Return which plugin a name comes from, see `ifcar.plugins.origin`; nothing for one of ours."""
        return origin(self._items[name][1]) if name in self._items else {}

    def advise(self, name: str, advice: str) -> None:
        """Say what the message about a name that turns out to be unknown should tell the user to do."""
        self._advice[name] = advice
