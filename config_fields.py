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
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ifcar.errors import InputError, nearest, one_line, one_of


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
    """Make each value what its field declares, as a path of text and a tuple of a list.

    Raises:
        InputError: a value is of another type, none of its field's choices or out of its bounds.
    """
    kind: type = type(config)
    for name, field in fields_of(kind).items():
        value = getattr(config, name)
        taken = None if value is None and field.optional else _taken(field.kind, value, name)
        if taken is not value:
            object.__setattr__(config, name, taken)  # the config is frozen, and this is its own construction
        field.check(taken, name)


def path_of(value: object, shown: str) -> Path:
    """Return a path, given as one or as text. Raises InputError, which calls it `shown`, for anything else."""
    return typing.cast(Path, _taken(Path, value, shown))


_EXPECTED: Mapping[Any, str] = {
    Path: "a path",
    str: "text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    tuple: "a list",
    Mapping: "a mapping",
}


def _taken(kind: Any, value: Any, shown: str) -> Any:
    """Return a value as the type that is declared, Literals, whose choices say more, and unknown types as they are."""
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_taken(inner[0], own, f"{shown}[{place}]") for place, own in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return {key: _taken(inner[1], own, f"{shown}.{key}") for key, own in value.items()}
    if origin is Path and isinstance(value, str):
        return Path(value)
    if origin is str and isinstance(value, Path):
        return str(value)  # weights are a file or a word
    if origin in (int, float) and not isinstance(value, bool):
        if isinstance(value, int) or (isinstance(value, float) and origin is float):
            return value
        if isinstance(value, Integral if origin is int else Real):
            return origin(value)  # NumPy's
    elif origin in (bool, str, Path) or dataclasses.is_dataclass(origin):
        if isinstance(value, origin):
            return value
    elif origin not in _EXPECTED:
        return value
    expected = _EXPECTED.get(origin, origin.__name__)
    raise InputError(f"{shown} is {one_line(repr(value)):.200}; expected {expected}")


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
