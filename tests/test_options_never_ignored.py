"""No option is given in vain: every command's options are walked from the parser's own tree."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from ifcar.cli import app, main
from ifcar.commands.config_options import options_of
from ifcar.commands.extract import OF_AUGMENTED, OF_PIXELS
from ifcar.commands.finetune import _NOT_IN_CONFIG
from ifcar.commands.fit import BESIDE_CONFIG
from ifcar.commands.grid import TRAINING
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.runs.resolve import make_run_config

ROOT = typer.main.get_command(app)


def commands(command: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, with its words."""
    for name, own in getattr(command, "commands", {}).items():
        yield from commands(own, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


COMMANDS = dict(commands())


def options(path: tuple[str, ...]) -> list[Any]:
    return [parameter for parameter in COMMANDS[path].params if parameter.param_type_name == "option"]


def given(option: Any) -> list[str]:
    """Return an option as it is given; "3" is a number, a text and a path."""
    return [option.opts[0]] if option.is_flag else [option.opts[0], "3"]


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_every_command_is_walked() -> None:
    assert len(COMMANDS) >= 17 and all(options(path) for path in COMMANDS)


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_a_commands_body_uses_every_option(path: tuple[str, ...]) -> None:
    """By its own name, or by that of the parameter which holds a config's options."""
    function = inspect.unwrap(COMMANDS[path].callback)
    source = ast.parse(textwrap.dedent(inspect.getsource(function)))
    body = ast.Module(body=source.body[0].body, type_ignores=[])  # type: ignore[attr-defined]
    named = {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
    taken = set(named)
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        chosen = options_of(parameter)
        if chosen is not None and parameter.name in named:
            taken |= set(chosen.fields)
    assert not [option.name for option in options(path) if option.name not in taken]


@pytest.mark.slow
def test_every_field_that_an_option_sets_is_read_somewhere() -> None:
    """A config's options are handed on as a whole, so what nobody reads of it would be ignored."""
    package = Path(inspect.getfile(main)).parent
    files = [path for room in ("extract", "pipelines") for path in (package / room).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    taken = [
        field.name
        for command in COMMANDS.values()
        for parameter in inspect.signature(inspect.unwrap(command.callback), eval_str=True).parameters.values()
        if (chosen := options_of(parameter)) is not None
        for field in chosen.fields.values()
    ]
    assert len(taken) > 20 and set(taken) <= read


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("configs")
    config = to_plain(make_run_config("base", Path("c.zarr"), protocol="p", streams="layout"))
    paths = {"fit-head": folder / "config.yaml"}
    paths["fit-head"].write_text(yaml.safe_dump(config))
    return paths | {"finetune": paths["fit-head"]}


BESIDE = [
    *((("fit-head",), option) for option in options(("fit-head",)) if option.name not in BESIDE_CONFIG),
    *(
        (path, o)
        for path in (("finetune", "i3d"), ("finetune", "joint"))
        for o in options(path)
        if o.name not in _NOT_IN_CONFIG
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "option"),
    BESIDE,
    ids=lambda value: getattr(value, "name", "-".join(value) if isinstance(value, tuple) else ""),
)
def test_what_a_config_states_is_refused_beside_it(
    path: tuple[str, ...], option: Any, configs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    if option.name in ("dataset", "head"):
        expected = "alone"
    else:
        expected = f"{option.opts[0]} would be ignored: {configs[path[0]]} states the whole run"
    assert expected in refusal([*path, "--config", str(configs[path[0]]), *given(option)], capsys)


@pytest.mark.parametrize("name", OF_PIXELS)
def test_options_of_pixels_are_refused_where_none_are_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (option,) = (own for own in options(("extract",)) if own.name == name)
    said = refusal(["extract", "--dataset", "toybox", "--backbone", "none", *given(option)], capsys)
    assert f"{option.opts[0]} would be ignored: --backbone none reads no pixels" in said


@pytest.mark.parametrize("name", OF_AUGMENTED)
def test_options_of_augmented_views_are_refused_where_there_are_none(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (option,) = (own for own in options(("extract",)) if own.name == name)
    assert f"{option.opts[0]} would be ignored: no view is augmented" in refusal(
        ["extract", "--dataset", "toybox", *given(option)], capsys
    )


@pytest.mark.parametrize("name", TRAINING)
def test_options_of_training_are_refused_where_runs_are_listed_only(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (option,) = (own for own in options(("grid",)) if own.name == name)
    said = refusal(["grid", "toybox-table1", "--dry-run", *given(option)], capsys)
    assert f"{option.opts[0]} would be ignored: --dry-run" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit-head", "base", "--schedule", "paper", "--min-steps", "9"], "--min-steps would be ignored"),
        (["fit-head", "base", "--schedule", "paper", "--refit"], "--refit would be ignored"),
        (["fit-head", "base", "--schedule", "paper", "--no-refit"], "--no-refit would be ignored"),
        (["fit-head", "base", "--epochs", "2", "--min-steps", "9"], "--epochs and --min-steps exclude each other"),
        (["few-shot", "base", "--schedule", "paper", "--min-steps", "9"], "--min-steps would be ignored"),
        (["few-shot", "base", "--tune-schedule", "paper", "--tune-steps", "9"], "--tune-steps would be ignored"),
        (["grid", "toybox-table1", "--processes", "0"], "--processes is 0; expected at least 1"),
        (["fit-head", "base", "--set", "graphs=a", "--set", "graphs=b"], "--set graphs is given twice"),
        (["ensemble", "--weights", "1;2"], "--weights is '1;2'; expected numbers such as 0.4,0.6"),
        (["extract", "--dataset", "toybox", "--sampling-rates", "2,4"], "--views is 1; expected at least 2"),
        (
            ["extract", "--dataset", "toybox", "--pooled", "7max"],
            "'7max'; expected one of 3, 7-max, mask, none",
        ),
        (["extract", "--dataset", "toybox", "--address", "auto"], "would be ignored: it belongs to --engine ray"),
        (["extract", "--dataset", "toybox", "--actor-cpus", "1"], "would be ignored: it belongs to --engine ray"),
        (["list", "heads", "--weights", "x"], "would be ignored"),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "c.zarr").mkdir()
    cache = ["--cache", str(tmp_path / "c.zarr")] if arguments[0] in ("fit-head", "few-shot") else []
    assert message in refusal([*arguments, *cache], capsys)
