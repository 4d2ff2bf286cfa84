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

from ifcar.config_fields import check_choice
from ifcar.errors import InputError, MissingDataError, nearest_of, one_line
from ifcar.text_files import read_text

C = TypeVar("C")
MAX_YAML_BYTES = 1 << 22
_LARGEST_INT = 1 << 53
# What PyYAML lets through for values that look like dates, numbers or bytes and are none, and for endless nesting.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


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
        InputError: not a mapping, an unknown key (with the nearest known one), a missing key, a wrong type, or a
            value that the dataclass refuses.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected a mapping of options, found {type(content).__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    for key in content:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r:.80}{nearest_of(str(key)[:80], known)}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in content.items()}
    absent = [
        n
        for n, f in known.items()
        if n not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise InputError(f"{where}: missing key {', '.join(absent)}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    """Check and convert one value to its annotated type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is typing.Literal:
        check_choice(value, arguments, where)
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InputError(f"{where} is {value!r:.200}; expected a list")
        return tuple(_value(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if origin in (dict, Mapping) or hint in (dict, Mapping) or origin is typing.get_origin(Mapping[str, float]):
        if not isinstance(value, Mapping):
            raise InputError(f"{where} is {value!r:.200}; expected a mapping")
        return {str(k): _value(arguments[1], v, f"{where}.{k}") if arguments else v for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type[Any], hint), value, where)
    return _scalar(hint, value, where)


_SWITCHES = {"yes": True, "on": True, "no": False, "off": False}
_EXPECTED: Mapping[Any, str] = {float: "a finite number", int: "a whole number below 2^53"}


def _truth(value: Any) -> Any:
    """Return True or False for yes, on, no and off, and anything else as it is."""
    return _SWITCHES.get(value.lower(), value) if isinstance(value, str) else value


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is bool:
        value = _truth(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-3 as text
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif isinstance(value, bool):
        if hint is bool:
            return value
    elif isinstance(value, hint) and (not isinstance(value, int) or abs(value) <= _LARGEST_INT):
        return value
    raise InputError(f"{where} is {value!r:.200}; expected {_EXPECTED.get(hint, getattr(hint, '__name__', hint))}")


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that a mapping names twice, and aliases, which unfold without end.

    Only `true` and `false` are truth values: whether `off` is one or the name of a choice depends on the option.
    """

    yaml_implicit_resolvers = {  # by a value's first letter  # noqa: RUF012
        first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is named twice", key_node.start_mark)
            seen.add(key if isinstance(key, str) else None)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file safely.

    Raises:
        MissingDataError: there is no such file.
        InputError: it is not YAML, or names a key twice; the message says where.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file")
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes; YAML is read up to {MAX_YAML_BYTES:,}")
        return yaml.load(read_text(path), Loader=_StrictLoader)  # noqa: S506  (a safe loader)
    except InputError:
        raise
    except _YAML_ERRORS as error:
        raise InputError(f"{path}: not valid YAML ({one_line(error)[:300]})") from error


def parse_assignment(text: str, option: str = "--set", example: str = "joint.dropout=0.5") -> tuple[str, Any]:
    """Return key and value of "a.b=value" as `option` takes it; the value is read as YAML.

    Raises:
        InputError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"{option} {text!r:.200}: expected KEY=VALUE, for example {example}")
    try:
        return key, yaml.load(value, Loader=_StrictLoader)  # noqa: S506  (a safe loader)
    except _YAML_ERRORS as error:
        raise InputError(f"{option} {text!r:.200}: the value is not valid YAML") from error


def set_option(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a value under a dotted key into nested plain options. Raises InputError when there is no such option."""
    *groups, last = key.split(".")
    place = content
    for group in groups:
        inner = place.get(group)
        if not isinstance(inner, dict):
            raise InputError(f"option {key!r}: no group of options {group!r}{nearest_of(group, place)}")
        place = inner
    if last not in place:
        raise InputError(f"option {key!r}: unknown key {last!r:.80}{nearest_of(last[:80], place)}")
    place[last] = _truth(value) if isinstance(place[last], bool) else value
