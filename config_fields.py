"""What a field of a frozen config says of itself, once: the option that sets it, and its bounds.

    @dataclass(frozen=True, kw_only=True, slots=True)
    class ExampleConfig:
        batch_size: Annotated[int, Option("Clips per step."), Bounds(least=1)] = 8

        def __post_init__(self) -> None:
            check_fields(self)

A command takes `--batch-size` with that help, type and default, and the config refuses 0 wherever it comes from. A
field's choices are those of its `Literal`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifcar.errors import InputError, nearest, one_of


@dataclass(frozen=True, slots=True)
class Option:
    """The command-line option of a field.

    Args:
        help: what it is, in words for a newcomer.
        flag: its name; None takes the field's.
        default: what a default of None stands for.
        repeated: given once for each value of a tuple; else all of them at once, with commas between.
    """

    help: str
    flag: str | None = None
    default: str | None = None
    repeated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Where a number may lie; None: without end. An endless or undefined number lies in no bounds.

    Args:
        least: the smallest.
        most: the largest.
        above: it must be larger.
        below: it must be smaller.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def hold(self, value: float) -> bool:
        """Return whether the value lies within."""
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"{self.least:,} to {self.most:,}"
        words = ("at least", self.least), ("more than", self.above), ("at most", self.most), ("below", self.below)
        return " and ".join(f"{word} {bound:,}" for word, bound in words if math.isfinite(bound))


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A field of a config, as its declaration says.

    Args:
        name: its name.
        kind: its type, without None: a class, Literal, tuple or Mapping.
        optional: whether it may be None.
        default: its default, or `dataclasses.MISSING`.
        option: its option, or None where the command line does not set it.
        bounds: its bounds, or None.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    option: Option | None
    bounds: Bounds | None

    @property
    def flag(self) -> str:
        """Return the option's name."""
        own = None if self.option is None else self.option.flag
        return own or "--" + self.name.replace("_", "-")

    @property
    def choices(self) -> tuple[Any, ...]:
        """Return the values of its Literal, () where any value of its type will do."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is typing.Literal else ()

    def check(self, value: object, shown: str) -> None:
        """Raise InputError when a value, which messages call `shown`, is none of the choices or out of bounds."""
        if value is None and self.optional:
            return
        if self.choices:
            check_choice(value, self.choices, shown)
        if self.bounds is not None:
            for number in value if isinstance(value, tuple) else (value,):
                if not self.bounds.hold(number):
                    raise InputError(f"{shown} is {value!r:.200}; expected {self.bounds}")


def check_choice(value: object, choices: Sequence[object], shown: str) -> None:
    """Raise InputError when a value, which messages call `shown`, is none of the choices."""
    if value not in choices:
        hint = nearest(str(value)[:80], map(str, choices)) if len(choices) > 1 else ""
        raise InputError(f"{shown} is {value!r:.200}; expected {one_of(choices)}{hint}")


@functools.cache
def fields_of(config: type) -> Mapping[str, Field]:
    """Return the fields of a config by name: inherited ones first, those of its nearest ancestor before all."""
    hints = typing.get_type_hints(config, include_extras=True)
    order = [name for kind in (*config.__mro__[1:], config) for name in getattr(kind, "__annotations__", ())]
    known = {field.name: field for field in dataclasses.fields(config)}
    return {name: _declared(known[name], hints[name]) for name in dict.fromkeys(order) if name in known}


def _declared(field: dataclasses.Field[Any], hint: Any) -> Field:
    facts = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    kind = typing.get_args(hint)[0] if facts else hint
    parts = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return Field(
        name=field.name,
        kind=next(part for part in parts if part is not type(None)),
        optional=type(None) in parts,
        default=field.default,
        option=next((fact for fact in facts if isinstance(fact, Option)), None),
        bounds=next((fact for fact in facts if isinstance(fact, Bounds)), None),
    )


def check_fields(config: Any) -> None:
    """Make paths of text, and raise InputError when a value is none of its field's choices or out of its bounds."""
    kind: type = type(config)
    for name, field in fields_of(kind).items():
        value = getattr(config, name)
        if field.kind is Path and isinstance(value, str):
            object.__setattr__(config, name, Path(value))  # the config is frozen, and this is its own construction
        field.check(value, name)


def words_of(config: Any) -> list[Any]:
    """Return the words with which a command line states a config, what is as by default left out."""
    kind: type = type(config)
    words: list[Any] = []
    for field in fields_of(kind).values():
        value = getattr(config, field.name)
        if field.option is not None and value is not None and value != field.default:
            words += words_for(field, value)
    return words


def words_for(field: Field, value: Any) -> list[Any]:
    """Return the words with which a command line gives a field a value."""
    if isinstance(value, Mapping):
        return [word for key, own in value.items() for word in (field.flag, f"{key}={own}")]
    if isinstance(value, bool):
        return [field.flag if value else f"--no-{field.flag[2:]}"]
    if field.option is not None and field.option.repeated:
        return [word for own in value for word in (field.flag, own)]
    return [field.flag, ",".join(map(_word, value)) if isinstance(value, tuple) else value]


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
