"""Frozen dataclass configs as YAML, both ways, strictly: unknown keys and wrong types are errors."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ifcar.errors import InputError, MissingDataError, nearest

C = TypeVar("C")


def to_plain(config: Any) -> Any:
    """Return a dataclass as plain dicts, lists and scalars, ready for YAML or JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_plain(v) for v in config]
    if isinstance(config, Path):
        return str(config)
    return config


def from_plain(kind: type[C], content: object, where: str) -> C:
    """Build the dataclass `kind` from plain values; absent keys keep their defaults.

    Args:
        kind: a dataclass.
        content: a mapping, one to one with its fields.
        where: what is being read, for messages.

    Raises:
        InputError: not a mapping, an unknown key (with the nearest known one), a missing key, or a wrong type.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected a mapping of options, found {type(content).__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    for key in content:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), known)} Known: {', '.join(known)}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in content.items()}
    absent = [
        n
        for n, f in known.items()
        if n not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise InputError(f"{where}: missing key {', '.join(absent)}")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    """Check and convert one value to its annotated type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where} is {value!r}; expected one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InputError(f"{where} is {value!r}; expected a list")
        return tuple(_value(arguments[0], item, where) for item in value)
    if origin in (dict, Mapping) or hint in (dict, Mapping) or origin is typing.get_origin(Mapping[str, float]):
        if not isinstance(value, Mapping):
            raise InputError(f"{where} is {value!r}; expected a mapping")
        return {str(k): _value(arguments[1], v, f"{where}.{k}") if arguments else v for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type[Any], hint), value, where)
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-3 as text
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"{where} is {value!r}; expected {getattr(hint, '__name__', hint)}")


def read_yaml(path: Path) -> Any:
    """Parse a YAML file safely.

    Raises:
        MissingDataError: there is no such file.
        InputError: it is not YAML; the message says where.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def set_option(content: dict[str, Any], assignment: str) -> None:
    """Put one "a.b=value" into nested plain options; the value is read as YAML.

    Raises:
        InputError: not of that form, or `a` is no group of options.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise InputError(f"--set {assignment!r}: expected KEY=VALUE, for example joint.dropout=0.5")
    *groups, last = key.split(".")
    place = content
    for group in groups:
        inner = place.get(group)
        if not isinstance(inner, dict):
            raise InputError(f"--set {assignment!r}: no group of options {group!r}{nearest(group, place)}")
        place = inner
    if last not in place:
        raise InputError(f"--set {assignment!r}: unknown key {last!r}{nearest(last, place)} Known: {', '.join(place)}")
    place[last] = yaml.safe_load(text)
