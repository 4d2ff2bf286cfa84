"""Systems of a grid with the values of their products filled in, under names that differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ifcar.errors import InputError, nearest_of
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.pipelines.grid.config import FusionConfig, SystemConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A system with the values of its product filled in.

    Args:
        name: the table's line.
        system: without a product.
        factors: λ and the product's values, by name.
    """

    name: str
    system: SystemConfig
    factors: Mapping[str, Any]


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
        yield Variant(name=filled.name, system=filled, factors={"aux_weight": filled.aux_weight, **factors})


def _name(template: str, factors: Mapping[str, Any]) -> str:
    name = template
    for factor, value in factors.items():
        name = name.replace(f"{{{factor}}}", _text(value))
    if name == template and factors:
        name += " (" + ", ".join(f"{factor} {_text(value)}" for factor, value in factors.items()) + ")"
    return name


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_names(variants: Sequence[Variant], ensembles: Sequence[FusionConfig], baseline: str | None) -> None:
    """Refuse two lines of one name, and ensembles and a baseline that name none."""
    names: list[str] = []
    for name in (*(v.name for v in variants), *(e.name for e in ensembles)):
        if name in names:
            raise InputError(f"two lines are called {name!r}; every system and ensemble needs a name of its own")
        names.append(name)
    systems = [v.name for v in variants]
    for fusion in ensembles:
        for member in fusion.members:
            if member not in systems:
                raise InputError(f"ensemble {fusion.name!r}: no system {member!r}{nearest_of(member, systems)}")
    if baseline is not None and baseline not in names:
        raise InputError(f"baseline {baseline!r} is no line of the table{nearest_of(baseline, names)}")


def check_starts(systems: Mapping[str, SystemConfig]) -> None:
    """Refuse a start that is no system, or that itself starts from another."""
    for name, system in systems.items():
        if system.start is None:
            continue
        if system.start not in systems:
            raise InputError(f"system {name!r}: start: no system {system.start!r}{nearest_of(system.start, systems)}")
        if systems[system.start].start is not None:
            raise InputError(f"system {name!r}: start: {system.start!r} starts from another system itself")
