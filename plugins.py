"""Plugins: heads, backbones and data sets from outside, which register themselves when they are imported.

An installed package names its modules under the entry points ifcar.heads, ifcar.backbones and ifcar.datasets. A single
file is named by `--plugin`, or in IFCAR_PLUGINS, which the processes that a command starts inherit and which the nodes
of a Ray cluster are told. A registry looks for plugins when a name is asked for that it does not hold, and when it
lists all of them.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path

from ifcar.errors import InputError, MissingDataError, one_line

VARIABLE = "IFCAR_PLUGINS"
PLACES: Mapping[str, tuple[str, str]] = {
    "head": ("ifcar.heads", "ifcar.heads.catalog"),
    "backbone": ("ifcar.backbones", "ifcar.extract.backbones.catalog"),
    "dataset": ("ifcar.datasets", "ifcar.extract.datasets.catalog"),
}
"""For each kind of registry its group of entry points, and the module that fills it with what ifcar has."""


def use_plugin(file: Path) -> None:
    """Import a plugin's file, here and in every process that this one starts.

    Raises:
        MissingDataError, InputError: there is no such file, or it cannot be imported.
    """
    path = file.absolute()
    if not path.is_file():
        raise MissingDataError(f"--plugin {file}: no such file; name a Python file that registers what it adds")
    if os.pathsep in str(path):
        raise InputError(f"--plugin {file}: {VARIABLE} divides files by {os.pathsep!r}; move it to a path without one")
    if failure := load_file(path):
        raise InputError(failure)
    named = named_files()
    if path not in named:
        os.environ[VARIABLE] = os.pathsep.join(map(str, [*named, path]))


def named_files() -> list[Path]:
    """Return the files that IFCAR_PLUGINS names."""
    return [Path(name).absolute() for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def load_plugins(kind: str) -> list[str]:
    """Import what there is for a kind of registry, each once; return a line on each that cannot be imported."""
    if kind not in PLACES:
        return []
    group, catalog = PLACES[kind]
    import_module(catalog)  # first, so that a plugin with a name of ours is the one that is refused
    return [failure for failure in [*load_entry_points(group), *map(load_file, named_files())] if failure]


@functools.cache
def warn_of(failure: str) -> None:
    """Say once that a plugin is left out, for a command that goes on without it."""
    logging.getLogger(__name__).warning("%s, and is left out", failure)


@functools.cache
def load_entry_points(group: str) -> tuple[str, ...]:
    """Import a group of entry points; return a line on each that cannot be imported."""
    failures = []
    for point in metadata.entry_points(group=group):
        try:
            point.load()
        except (Exception, SystemExit) as error:
            package = point.dist.name if point.dist is not None else "a package"
            failures.append(_failure(f"plugin {point.name!r} of {package}", error))
    return tuple(failures)


@functools.cache
def load_file(path: Path) -> str:
    """Import a file as the module of its name, so that other processes find what it defines; return why not, or "".

    Args:
        path: absolute.
    """
    for _, catalog in PLACES.values():
        import_module(catalog)
    name = path.stem
    if not path.is_file():
        return _failure(f"plugin {path}", "no such file")
    if not name.isidentifier():
        return _failure(f"plugin {path}", "its name is no module's; use letters, digits and _")
    sys.path.append(str(path.parent))
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:
        return _failure(f"plugin {path}", error)
    found = module.__file__
    if found is None or not path.samefile(found):
        return _failure(
            f"plugin {path}", f"another module is called {name}: {found or 'a built-in one'}; rename the file"
        )
    return ""


def origin(module: str) -> dict[str, str]:
    """Return where a module comes from: its package and version, or its file and SHA-256; nothing for one of ours."""
    if module.partition(".")[0] == "ifcar":
        return {}
    for package in metadata.packages_distributions().get(module.partition(".")[0], []):
        return {"package": package, "version": metadata.version(package)}
    found = getattr(sys.modules.get(module), "__file__", None)
    if found is None:
        return {"module": module}
    path = Path(found).absolute()
    return {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def how_to_get(origin: Mapping[str, str]) -> str:
    """Return what a user does to have what is of this origin."""
    if "package" in origin:
        return f"install the package {origin['package']} {origin.get('version', '')}".rstrip()
    if "file" in origin:
        return f"give --plugin {origin['file']} (SHA-256 {origin.get('sha256', '')[:12]}…)"
    return f"import the module {origin.get('module', '?')}"


def _failure(what: str, why: object) -> str:
    reason = f"{type(why).__name__}: {one_line(why)}" if isinstance(why, BaseException) else str(why)
    return f"{what} cannot be used ({reason})"
