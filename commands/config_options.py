"""Options of a command out of the configs that declare them.

    @with_config_options
    def extract(options: Annotated[Given, OptionsOf(ExtractConfig)], as_json: Json = False) -> None:

The command takes an option for each field of the config that declares one, and `options` holds those that were given,
by field. What was not given is left to the config's default, or to whatever else states it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer

from ifcar.config_fields import Field, fields_of
from ifcar.errors import IfcarError, InputError


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """The options that were given of some configs' fields.

    Args:
        values: for each of their fields the text, number or list of the command line.
    """

    values: Mapping[Field, Any]

    def read(self) -> dict[str, Any]:
        """Return what was given by field, as the configs hold it. Raises InputError naming a bad option."""
        return {field.name: _converted(field, value) for field, value in self.values.items()}


class OptionsOf:
    """The fields of configs that a command sets.

    Args:
        configs: the dataclasses; a field that several have is one option.
        only: names of the fields that are meant; None: all that declare an option.
        without: names of fields that are not.
        stated: of fields that something else than the config states when they are not given: what it is, for the help.
        of: what the options are of, before their help.
        flags: names of the options of fields, in place of those that the config declares.
    """

    def __init__(
        self,
        *configs: type,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        stated: Mapping[str, str] = MappingProxyType({}),
        of: str = "",
        flags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.stated, self.of = stated, of
        declared = {name: field for config in configs for name, field in fields_of(config).items() if field.option}
        names = [name for name in (declared if only is None else only) if name not in without]
        self.fields = {name: declared[name] for name in names if name not in flags}
        for name, flag in flags.items():
            field = declared[name]
            assert field.option is not None
            renamed = dataclasses.replace(field, option=dataclasses.replace(field.option, flag=flag))
            self.fields[flag[2:].replace("-", "_")] = renamed

    def parameters(self) -> list[inspect.Parameter]:
        """Return the fields as parameters that typer reads."""
        return [self._parameter(name, field) for name, field in self.fields.items()]

    def _parameter(self, name: str, field: Field) -> inspect.Parameter:
        assert field.option is not None
        stated = self.stated.get(field.name)
        default = None if stated is not None or _is_listed(field) else field.default
        kind, flag = field.kind, field.flag
        if kind is bool and field.default is not False:
            flag += f"/--no-{flag[2:]}"
        elif field.option.repeated:
            kind = list[typing.get_args(kind)[0]]  # type: ignore[misc]
        elif field.choices or _is_listed(field):
            kind = list[str] if typing.get_origin(kind) is Mapping else str
        option = typer.Option(
            flag,
            help=self.of + field.option.help,
            show_default=stated or field.option.default or True,
            **reading(flag, kind),
        )
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[kind | None if default is None else kind, option],
            default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
        )

    def given(self, context: typer.Context, values: Mapping[str, Any]) -> Given:
        """Return what was given of these fields, out of the values of all parameters."""
        return Given({field: values[name] for name, field in self.fields.items() if was_given(context, name)})


def reading(flag: str, kind: Any) -> dict[str, Any]:
    """Return how typer reads an option of a kind: numbers by us, whose message is one line as all others are."""
    several = typing.get_origin(kind) is list
    number = typing.get_args(kind)[0] if several else kind
    if number not in (int, float):
        return {}

    def read(text: Any) -> Any:
        try:
            return number(text)
        except ValueError:
            expected = "a whole number" if number is int else "a number"
            # an InputError is a ValueError too, which typer would put into words of its own
            raise IfcarError(f"{flag} is {text!r:.200}; expected {expected}") from None

    name = number.__name__
    return {"parser": read, "metavar": f"<list[{name}]>" if several else f"<{name}>"}


def _is_listed(field: Field) -> bool:
    return typing.get_origin(field.kind) in (Mapping, tuple)


def _converted(field: Field, value: Any) -> Any:
    """Return an option's value as the field holds it: KEY=VALUE pairs a mapping, "2,4,8" or repeated ones a tuple."""
    if typing.get_origin(field.kind) is Mapping:
        return _mapping(field, value)
    if field.option is not None and field.option.repeated:
        value = tuple(value)
    elif typing.get_origin(field.kind) is tuple:
        number = typing.get_args(field.kind)[0]
        try:
            value = tuple(number(part) for part in value.split(","))
        except ValueError as error:
            raise InputError(f"{field.flag} is {value!r}; expected numbers with commas between, as 2,4,8") from error
    field.check(value, field.flag)
    return value


def _mapping(field: Field, texts: Collection[str]) -> dict[str, Any]:
    from ifcar.pipelines.configs import parse_assignment

    pairs: dict[str, Any] = {}
    of_numbers = typing.get_args(field.kind)[1] is float
    for text in texts:
        key, value = parse_assignment(text, field.flag, *(["prediction=5"] if of_numbers else []))
        if key in pairs:
            raise InputError(f"{field.flag} {key} is given twice; give it one value")
        if of_numbers and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{field.flag} {text!r:.200}: expected a number after {key}=")
        pairs[key] = value
    return pairs


def was_given(context: typer.Context, name: str) -> bool:
    """Return whether a parameter of the command was given, and not left to its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def with_config_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command with each parameter that is annotated with `OptionsOf` replaced by those options."""
    own = inspect.signature(function, eval_str=True).parameters
    chosen = {name: options for name, parameter in own.items() if (options := options_of(parameter)) is not None}
    every: list[inspect.Parameter] = []
    for name, parameter in own.items():
        every += chosen[name].parameters() if name in chosen else [parameter.replace(kind=parameter.KEYWORD_ONLY)]
    if "context" not in own:
        every.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

    @functools.wraps(function)
    def command(**values: Any) -> None:
        handed = {name: values[name] for name in own if name not in chosen}
        given = {name: options.given(values["context"], values) for name, options in chosen.items()}
        try:
            function(**handed, **given)
        except InputError as error:
            flags = {field.name: field.flag for options in chosen.values() for field in options.fields.values()}
            message = _by_flags(str(error), flags)
            if message == str(error):
                raise
            raise type(error)(message) from error

    command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return command


def _by_flags(message: str, flags: Mapping[str, str]) -> str:
    """Return what a config says of its fields with the flags that set them: what begins with a field is about fields.

    Further fields are told from words by their underscores.
    """
    first = re.match(r"\w*", message)
    if first is None or first[0] not in flags or not re.match(r"\w+(:| (is|are|and) )", message):
        return message
    named = re.sub(r"\b[a-z0-9]+(_[a-z0-9]+)+\b", lambda found: flags.get(found[0], found[0]), message[first.end() :])
    return flags[first[0]] + named


def options_of(parameter: inspect.Parameter) -> OptionsOf | None:
    """Return the fields that a parameter of a command stands for, None where it is an option itself."""
    facts = getattr(parameter.annotation, "__metadata__", ())
    return next((fact for fact in facts if isinstance(fact, OptionsOf)), None)
