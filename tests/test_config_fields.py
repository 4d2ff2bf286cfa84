"""A field's help, type, default, choices and bounds are declared once; command line and configs hold to them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import ifcar
from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.config_fields import Bounds, Field, Option, check_choice, check_fields, fields_of, words_of
from ifcar.errors import InputError
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.live import LiveConfig, LiveData
from ifcar.pipelines.runs.schedule import ScheduleConfig

REQUIRED: dict[type, dict[str, Any]] = {
    ExtractConfig: {"dataset": "toybox"},
    LiveData: {"dataset": "toybox"},
    LiveConfig: {"data": LiveData(dataset="toybox")},
    RunConfig: {"head": "base", "cache": "c.zarr", "protocol": "p"},
    ScheduleConfig: {},
    ViewPolicy: {},
}


def outside(field: Field) -> list[Any]:
    """Return values that a field must refuse: next to each bound, and what is no number at all."""
    if field.choices:
        return ["nothing"]
    if field.bounds is None:
        return []
    bounds = field.bounds
    beyond = [bounds.least - 1, bounds.most + 1, bounds.above, bounds.below]
    endless = [math.nan, math.inf] if field.kind is float else []
    return [value for value in beyond if math.isfinite(value)] + endless


BAD = [
    (config, name, value)
    for config in REQUIRED
    for name, field in fields_of(config).items()
    for value in outside(field)
]


def test_there_are_bounded_fields_in_every_config() -> None:
    assert {config for config, _, _ in BAD} == set(REQUIRED) and len(BAD) > 50


@pytest.mark.parametrize(("config", "name", "value"), BAD, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_config_refuses_what_its_fields_do_not_allow(config: type, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is {value!r}.*expected"):
        config(**{**REQUIRED[config], name: value})


def test_what_configs_share_is_declared_once() -> None:
    """The same name is the same thing: views are spelled alike wherever clips are shown to a backbone."""
    shared = {"frames", "crop", "views", "instances", "framing", "flip"}
    policy, extraction, live = (fields_of(config) for config in (ViewPolicy, ExtractConfig, LiveData))
    assert shared <= policy.keys() & extraction.keys() & live.keys()
    for name in live.keys() & extraction.keys():
        assert live[name] == extraction[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallConfig:
    name: Annotated[str, Option("A name.")]
    count: Annotated[int, Option("A count.", "--number"), Bounds(least=1, most=9)] = 3
    rate: Annotated[float | None, Option("A rate.", default="the count's"), Bounds(above=0)] = None
    kind: Annotated[Literal["one", "two"], Option("one or two.")] = "one"
    places: Annotated[tuple[float, ...], Option("Places.")] = ()
    seeds: Annotated[tuple[int, ...], Option("Seeds.", "--seed", repeated=True)] = (0, 1)
    twice: Annotated[bool, Option("Do it twice.")] = False
    again: Annotated[bool, Option("Do it again.")] = True
    weights: Annotated[Mapping[str, float], Option("NAME=W.")] = field(default_factory=dict)
    own: Annotated[Mapping[str, Any], Option("KEY=VALUE.", "--set")] = field(default_factory=dict)
    inner: int = 0

    def __post_init__(self) -> None:
        check_fields(self)


def small_app(take: Callable[[dict[str, Any]], None], config: type = SmallConfig) -> typer.Typer:
    """Return a command that hands what was given of the config's options to `take`."""
    app = typer.Typer(rich_markup_mode=None)

    def small(*, options: Any) -> None:
        take(options.read())

    small.__annotations__["options"] = Annotated[Given, OptionsOf(config)]
    app.command()(with_config_options(small))
    return app


@pytest.fixture
def app() -> tuple[typer.Typer, list[dict[str, Any]]]:
    seen = list[dict[str, Any]]()
    return small_app(seen.append), seen


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--name x", {"name": "x"}),
        ("--name x --number 3", {"name": "x", "count": 3}),  # given, though it is the default
        ("--name x --twice --no-again", {"name": "x", "twice": True, "again": False}),
        ("--name x --weights a=5 --weights b=0.5", {"name": "x", "weights": {"a": 5, "b": 0.5}}),
        ("--name x --seed 5 --seed 10", {"name": "x", "seeds": (5, 10)}),
        ("--name x --places 1,2.5 --kind two", {"name": "x", "places": (1.0, 2.5), "kind": "two"}),
    ],
)
def test_a_command_is_told_what_was_given_and_nothing_else(app: Any, arguments: str, expected: dict[str, Any]) -> None:
    result = CliRunner().invoke(app[0], arguments.split(), catch_exceptions=False)
    assert result.exit_code == 0 and app[1] == [expected]
    assert SmallConfig(**expected) == SmallConfig(**{"count": 3, "kind": "one", **expected})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--number 10", "--number is 10; expected 1 to 9"),
        ("--rate 0", "--rate is 0.0; expected more than 0"),
        ("--kind tow", "--kind is 'tow'; expected one of one, two, did you mean 'two'?"),
        ("--weights a=yes", "--weights 'a=yes': expected a number after a="),
        ("--weights a", "--weights 'a': expected KEY=VALUE, for example prediction=5"),
        ("--set a=1 --set a=2", "--set a is given twice"),
        ("--places 1;2", "--places is '1;2'; expected numbers with commas between"),
    ],
)
def test_a_bad_option_is_named_as_it_was_given(app: Any, arguments: str, message: str) -> None:
    result = CliRunner().invoke(app[0], ["--name", "x", *arguments.split()])
    assert isinstance(result.exception, InputError) and message in str(result.exception)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacesConfig:
    folder: Path | None = None
    files: tuple[Path, ...] = ()
    weights: str | None = None
    inner: SmallConfig | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def test_a_config_takes_what_is_meant_as_its_fields_declare_it() -> None:
    places = PlacesConfig(folder="a", files=["b", Path("c")], weights=Path("d"))  # type: ignore[arg-type]
    assert places == PlacesConfig(folder=Path("a"), files=(Path("b"), Path("c")), weights="d")
    small = SmallConfig(name="x", count=np.int64(3), rate=2, places=[1.0])  # type: ignore[arg-type]
    assert small == SmallConfig(name="x", count=3, rate=2.0, places=(1.0,)) and type(small.count) is int


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (SmallConfig, {"name": ["hand"]}, "name is ['hand']; expected text"),
        (SmallConfig, {"count": "8"}, "count is '8'; expected a whole number"),
        (SmallConfig, {"count": 8.0}, "count is 8.0; expected a whole number"),
        (SmallConfig, {"count": None}, "count is None; expected a whole number"),
        (SmallConfig, {"count": True}, "count is True; expected a whole number"),
        (SmallConfig, {"rate": np.zeros((2, 1))}, "rate is array([[0.], [0.]]); expected a number"),
        (SmallConfig, {"places": "1,2"}, "places is '1,2'; expected a list"),
        (SmallConfig, {"seeds": (0, "1")}, "seeds[1] is '1'; expected a whole number"),
        (SmallConfig, {"twice": "no"}, "twice is 'no'; expected True or False"),
        (SmallConfig, {"weights": ["a"]}, "weights is ['a']; expected a mapping"),
        (SmallConfig, {"weights": {"a": "5"}}, "weights.a is '5'; expected a number"),
        (PlacesConfig, {"folder": 3}, "folder is 3; expected a path"),
        (PlacesConfig, {"inner": {"name": "x"}}, "inner is {'name': 'x'}; expected SmallConfig"),
    ],
)
def test_a_config_refuses_a_value_of_another_type_in_one_line(config: type, values: Any, message: str) -> None:
    with pytest.raises(InputError) as refused:
        config(**({"name": "x"} if config is SmallConfig else {}) | values)
    assert str(refused.value) == message


def test_every_config_of_the_library_looks_at_the_types_of_its_fields() -> None:
    configs = [getattr(ifcar, name) for name in ifcar.__all__ if name.endswith("Config")]
    assert len(configs) > 5
    for config in configs:
        asked = inspect.signature(config).parameters.values()
        required = {own.name: "x" for own in asked if own.default is inspect.Parameter.empty}
        for own in fields_of(config).values():
            with pytest.raises(InputError, match=rf"^{own.name} is <object.*; expected"):
                config(**{**required, own.name: object()})


def test_the_only_choice_is_no_one_of_many() -> None:
    with pytest.raises(InputError, match=r"^--as is 'hdf6'; expected hdf5$"):
        check_choice("hdf6", ("hdf5",), "--as")
    with pytest.raises(InputError, match=r"^--as is 'hdf6'; expected one of hdf5, zarr, did you mean 'hdf5'\?$"):
        check_choice("hdf6", ("hdf5", "zarr"), "--as")


@given(
    name=st.from_regex(r"[a-z]+", fullmatch=True),
    count=st.integers(1, 9),
    rate=st.none() | st.sampled_from([0.5, 1e-3]),
    places=st.lists(st.sampled_from([0.5, 2.0, 12.0]), max_size=3).map(tuple),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
    twice=st.booleans(),
    again=st.booleans(),
    own=st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.booleans()),
)
def test_the_words_of_a_config_make_it_again(**values: Any) -> None:
    config, made = SmallConfig(**values), list[SmallConfig]()
    CliRunner().invoke(small_app(lambda given: made.append(SmallConfig(**given))), [str(w) for w in words_of(config)])
    assert made == [config]


TUNE_FLAGS = {"count": "--tune-number", "rate": "--tune-rate"}


def test_a_config_that_a_command_takes_twice_has_other_flags_the_second_time() -> None:
    app, seen = typer.Typer(rich_markup_mode=None), list[dict[str, Any]]()

    @app.command()
    @with_config_options
    def twice(
        *,
        first: Annotated[Given, OptionsOf(SmallConfig, only=("count",))],
        then: Annotated[Given, OptionsOf(SmallConfig, only=(), flags=TUNE_FLAGS, stated={"count": "the first's"})],
    ) -> None:
        seen.extend([first.read(), then.read()])

    CliRunner().invoke(app, ["--number", "2", "--tune-number", "3"], catch_exceptions=False)
    assert seen == [{"count": 2}, {"count": 3}]
    refused = CliRunner().invoke(app, ["--tune-number", "10"]).exception
    assert "--tune-number is 10; expected 1 to 9" in str(refused)
    assert "A count. [default: (the first's)]" in " ".join(CliRunner().invoke(app, ["--help"]).output.split())


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("count is 3; expected at least 5, one for each of the places", "--number is 3; expected at least 5, one"),
        ("places and own_rate exclude each other", "--places and --rates exclude each other"),
        ("own_rate: 0 is named twice", "--rates: 0 is named twice"),
        ("grid.yaml: count is 3", "grid.yaml: count is 3"),
        ("count 3 of own_rate", "count 3 of own_rate"),
    ],
)
def test_a_command_says_flags_where_a_config_says_its_fields(said: str, shown: str) -> None:
    @dataclass(frozen=True, kw_only=True, slots=True)
    class More(SmallConfig):
        own_rate: Annotated[float, Option("A rate.", "--rates")] = 0.5

    def refuse(_: dict[str, Any]) -> None:
        raise InputError(said)

    refused = CliRunner().invoke(small_app(refuse, More), ["--name", "x"]).exception
    assert isinstance(refused, InputError) and str(refused).startswith(shown)


def test_help_shows_each_option_with_its_default(app: Any) -> None:
    text = " ".join(CliRunner().invoke(app[0], ["--help"]).output.split())
    for line in ("--name <str> A name. [required]", "A count. [default: 3]", "A rate. [default: (the count's)]"):
        assert line in text
    assert "--again / --no-again" in text and "--twice Do it twice." in text and "inner" not in text
    assert fields_of(SmallConfig)["name"].default is MISSING
