"""The command line: its commands, exit codes and one-line errors. Heavy imports happen inside commands."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ifcar import __version__
from ifcar.commands import cache, data, runs, transfer
from ifcar.commands.compare import compare
from ifcar.commands.demo import demo
from ifcar.commands.detect import detect
from ifcar.commands.diagnose import diagnose
from ifcar.commands.ensemble import ensemble
from ifcar.commands.extract import extract
from ifcar.commands.finetune import finetune_i3d, finetune_joint
from ifcar.commands.fit import evaluate, fit_head
from ifcar.commands.grid import few_shot, grid
from ifcar.commands.listing import list_
from ifcar.commands.predict import predict
from ifcar.commands.report import report
from ifcar.console import fail
from ifcar.errors import IfcarError, is_out_of_memory
from ifcar.heap import keep_freed_memory
from ifcar.plugins import VARIABLE, use_plugin
from ifcar.terminal import DEBUG, quiet_libraries


class InterruptedCommandError(Exception):
    """A command was interrupted; says what it leaves and how to go on."""


def saying(left: str, function: Callable[..., None]) -> Callable[..., None]:
    """Return the command, which says what is left of it when it is interrupted."""

    @functools.wraps(function)
    def command(**values: Any) -> None:
        try:
            function(**values)
        except KeyboardInterrupt:
            raise InterruptedCommandError(left) from None

    return command


SIGNALLED = 128  # a shell's exit code of a command that a signal ended, less the signal's number

app = typer.Typer(
    name="ifcar",
    help="Object-centric activity recognition: extract features once, then train every head from the cache.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # of every command below too
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="Look at, check, repair, draw, export, push and pull caches.", no_args_is_help=True)
data_app = typer.Typer(help="Look at a data set before it is extracted.", no_args_is_help=True)
finetune_app = typer.Typer(
    help="Train the backbone, alone or with a head from a cache; its file goes back to `ifcar extract --weights`. "
    "Several GPUs: `torchrun --nproc-per-node N --no-python ifcar finetune …`.",
    no_args_is_help=True,
)
runs_app = typer.Typer(help="Compare and remove runs; `ifcar list runs` shows them.", no_args_is_help=True)
data_app.callback()(data.commands)

GOES_ON = "what is finished is kept, go on with the same command"
RESUMES = f"{GOES_ON}, --resume and --out"
AGAIN = "the same command begins anew"
for group, name, function, left in (
    (app, "demo", demo, GOES_ON),
    (app, "detect", detect, GOES_ON),
    (app, "extract", extract, GOES_ON),
    (app, "fit-head", fit_head, RESUMES),
    (app, "evaluate", evaluate, AGAIN),
    (app, "diagnose", diagnose, AGAIN),
    (app, "predict", predict, AGAIN),
    (app, "ensemble", ensemble, AGAIN),
    (app, "grid", grid, GOES_ON),
    (app, "few-shot", few_shot, GOES_ON),
    (app, "report", report, AGAIN),
    (app, "compare", compare, AGAIN),
    (app, "list", list_, AGAIN),
    (cache_app, "info", cache.info, AGAIN),
    (cache_app, "join", cache.join, AGAIN),
    (cache_app, "parts", cache.parts, AGAIN),
    (cache_app, "verify", cache.verify, AGAIN),
    (cache_app, "repair", cache.repair, GOES_ON),
    (cache_app, "export", cache.export, AGAIN),
    (cache_app, "show", cache.show, AGAIN),
    (cache_app, "push", transfer.push, GOES_ON),
    (cache_app, "pull", transfer.pull, GOES_ON),
    (data_app, "check", data.check, AGAIN),
    (finetune_app, "i3d", finetune_i3d, RESUMES),
    (finetune_app, "joint", finetune_joint, RESUMES),
    (runs_app, "diff", compare, AGAIN),
    (runs_app, "rm", runs.rm, GOES_ON),
):
    group.command(name)(saying(left, function))
for name, group in (("cache", cache_app), ("data", data_app), ("finetune", finetune_app), ("runs", runs_app)):
    app.add_typer(group, name=name)

REPLACED = {"--graphs": "write --set graphs=NAME", "--non-local": "write --set non_local=true"}
"""Options that are no longer there, and what to write now."""


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Run one of the commands below; `ifcar demo` shows the whole way in a few minutes."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _use_plugins(files: list[Path] | None) -> None:
    for file in files or ():
        use_plugin(file)


def _with_plugin_option(command: Any) -> Any:
    """Return a click command after it and each command below it got the option --plugin, read before all others."""
    holder = typer.Typer(add_completion=False)

    @holder.command()
    def hold(
        plugin: Annotated[
            list[Path] | None,
            typer.Option(
                metavar="FILE.py",
                help=f"Heads, backbones or data sets of your own; may be repeated. Or name files in {VARIABLE}.",
                is_eager=True,
                expose_value=False,
                callback=_use_plugins,
            ),
        ] = None,
    ) -> None: ...

    (option,) = (parameter for parameter in typer.main.get_command(holder).params if parameter.name == "plugin")
    reached = [command]
    for found in reached:
        found.params.append(option)
        reached += getattr(found, "commands", {}).values()
    return command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 some items failed, 2 bad input, 130 interrupted, 143 terminated."""
    quiet_libraries()
    keep_freed_memory()
    debug = bool(os.environ.get(DEBUG))
    stop = signal.SIGINT

    def terminate(*_: object) -> None:
        nonlocal stop
        stop = signal.SIGTERM
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        code = _with_plugin_option(typer.main.get_command(app))(
            args=None if arguments is None else list(arguments), prog_name="ifcar", standalone_mode=False
        )
        if code == SIGNALLED + signal.SIGINT:
            raise KeyboardInterrupt  # newer typer turns Ctrl-C into this code
    except IfcarError as error:
        if debug:
            raise
        code = fail(str(error))
    except (InterruptedCommandError, KeyboardInterrupt, typer.Abort) as error:
        code = fail(f"interrupted; {str(error) or AGAIN}", SIGNALLED + stop)
    except OSError as error:
        if debug:
            raise
        code = fail(f"{error.filename or 'a file'}: {error.strerror or error}{_named_by(error.filename)}")
    except Exception as error:
        if is_out_of_memory(error):
            said = " ".join(f"out of memory. {error}".split())
            code = fail(f"{said}; what is finished is kept. Take a smaller batch, or --memory stream for training")
        elif _is_a(error, "NoArgsIsHelpError"):  # its message is the help, which has lines
            typer.echo(error.format_message())  # type: ignore[attr-defined]
            code = 2
        elif _is_a(error, "ClickException"):  # typer carries its own copy of click or uses the installed one
            context = getattr(error, "ctx", None)
            command = "ifcar" if context is None else context.command_path
            name = getattr(error, "option_name", "")
            said = f"No such option: {name}" if name in REPLACED else error.format_message().rstrip(".")  # type: ignore[attr-defined]
            advice = REPLACED.get(name, f"see `{command} --help`")
            code = fail(f"{said} {advice[0].upper()}{advice[1:]}" if said.endswith("?") else f"{said}; {advice}")
        else:
            raise
    sys.exit(code if isinstance(code, int) else 0)


def _named_by(path: object) -> str:
    """Return how a message about a file ends: the variable that names a folder which it lies in, and what is kept."""
    names = (name for name, folder in os.environ.items() if name.startswith("IFCAR_") and folder)
    place = Path(path) if isinstance(path, str | Path) else None
    name = next((own for own in names if place is not None and place.is_relative_to(os.environ[own])), None)
    advice = "" if name is None else f"; {name} is {os.environ[name]}, expected a folder that can be written"
    return f"{advice}; what is finished is kept"


def _is_a(error: Exception, name: str) -> bool:
    """Return whether an error's class, or one that it derives from, has this name; its module is not imported here."""
    return any(kind.__name__ == name for kind in type(error).__mro__)
