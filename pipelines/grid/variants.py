"""Systems of a grid with the values of their products filled in, under names that differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ifcar.errors import InputError, nearest_of
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.lines import SystemConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A system with the values of its product filled in.

    Args:
        name: the table's line.
        system: without a product.
        factors: λ and the product's values, by name.
        template: the system's name in the file.
    """

    name: str
    system: SystemConfig
    factors: Mapping[str, Any]
    template: str


def expand(system: SystemConfig) -> Iterator[Variant]:
    """Yield a system once for every combination of its product's values, the last factor fastest."""
    for values in itertools.product(*system.product.values()):
        factors = dict(zip(system.product, values, strict=True))
        content: dict[str, Any] = {**to_plain(system), "product": {}, "name": _name(system.name, factors)}
        for factor, value in factors.items():
            group, _, key = factor.partition(".")
            if key:
                content[group] = {**content[group], key: value}
            else:
                content[factor] = value
        filled = from_plain(SystemConfig, content, f"system {content['name']!r}")
        known = {"aux_weight": filled.aux_weight, **factors}
        yield Variant(name=filled.name, system=filled, factors=known, template=system.name)


def _name(template: str, factors: Mapping[str, Any]) -> str:
    name = template
    for factor, value in factors.items():
        name = name.replace(f"{{{factor}}}", _text(value))
    if name == template and factors:
        name += " (" + ", ".join(f"{factor} {_text(value)}" for factor, value in factors.items()) + ")"
    return name


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_names(variants: Sequence[Variant], config: GridConfig) -> None:
    """Refuse names that stand for nothing, or for two: systems of one name have other tasks, and nothing names them."""
    lines = [(v.name, task) for v in variants for task in v.system.tasks or ("",)]
    lines += [(name, "") for name in (*(e.name for e in config.ensembles), *(c.name for c in config.choices))]
    names, templates = [v.name for v in variants], list(dict.fromkeys(v.template for v in variants))
    for number, (name, task) in enumerate(lines):
        if any(name == other and (task == its or not task or not its) for other, its in lines[:number]):
            what = f"{name!r}, task {task}" if task else repr(name)
            raise InputError(f"two lines are called {what}; every line of a table needs a name of its own")
    for choice in config.choices:
        if choice.of not in templates:
            raise InputError(f"choice {choice.name!r}: no system {choice.of!r}{nearest_of(choice.of, templates)}")
        if any(v.system.tasks for v in variants if v.template == choice.of):
            raise InputError(f"choice {choice.name!r}: {choice.of!r} has tasks; expected a system of one line each")
    named = [(f"ensemble {e.name!r}", member) for e in config.ensembles for member in e.members]
    named += [(f"system {v.name!r}: start", v.system.start) for v in variants if v.system.start is not None]
    for where, name in named:
        if name not in names:
            raise InputError(f"{where}: no system {name!r}{nearest_of(name, names)}")
        has_tasks = any(v.name == name and v.system.tasks for v in variants)
        if names.count(name) > 1 or (where.startswith("ensemble") and has_tasks):
            raise InputError(f"{where}: {name!r} has tasks; expected a system that is one line of the table")
    if (baseline := config.baseline) is not None and baseline not in [name for name, _ in lines]:
        raise InputError(f"baseline {baseline!r} is no line of the table{nearest_of(baseline, [n for n, _ in lines])}")


def check_sources(variants: Sequence[Variant]) -> None:
    """Refuse a start, or a teacher, that is itself made from another system's runs, and a start of another head."""
    by_name = {variant.name: variant.system for variant in variants}
    for variant in variants:
        own = variant.system
        bases = [("start", by_name[own.start])] if own.start is not None else []
        for what, base in [*bases, *(("distil_from", teacher) for teacher, _ in teachers_of(own, variants))]:
            if base is own:
                raise InputError(f"system {own.name!r}: {what} names the system itself; expected another one")
            if base.start is not None or base.distil_from:
                raise InputError(
                    f"system {own.name!r}: {what}: {base.name!r} is made from another system itself; expected one that "
                    "has neither start nor distil_from"
                )
            if what == "start" and base.head != own.head:
                raise InputError(
                    f"system {own.name!r}: start: {base.name!r} is of head {base.head}; expected one of its own head, "
                    f"{own.head}"
                )


def teachers_of(system: SystemConfig, variants: Sequence[Variant]) -> list[tuple[SystemConfig, str]]:
    """Return the systems that a system learns from, each with the task whose answers are meant, "" for its only one.

    Raises:
        InputError: there is no such system or task, or several.
    """
    found = []
    for name, tasks in system.distil_from.items():
        where, own = f"system {system.name!r}: distil_from", [v.system for v in variants if v.name == name]
        if not own:
            raise InputError(f"{where}: no system {name!r}{nearest_of(name, [v.name for v in variants])}")
        known = [task for other in own for task in other.tasks]
        if not tasks and (known or len(own) > 1):
            raise InputError(f"{where}: {name!r} has tasks; name those that are meant: {', '.join(known)}")
        for task in tasks:
            if task not in known:
                raise InputError(f"{where}: {name!r} has no task {task!r}{nearest_of(task, known)}")
        found += [(next(o for o in own if not task or task in o.tasks), task) for task in tasks or ("",)]
    return found
