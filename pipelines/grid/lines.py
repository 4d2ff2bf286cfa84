"""What a line of a grid's table is: a system, a late fusion of some, or the best of a product."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.errors import InputError, nearest_of
from ifcar.pipelines.published.tables import check_figures

SINGLE_FACTORS = ("head", "preset", "streams", "aux_weight", "views", "augmented_views")
GROUP_FACTORS = ("settings", "schedule", "aux_weights")


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemConfig:
    """One line of the table, or with `product` several.

    Args:
        name: what the table calls it; {FACTOR} stands for a product's value. A product whose name shows no factor has
            them appended.
        head: registered name.
        preset: the head's preset; None takes the grid's.
        streams: "appearance", "layout" or "both".
        aux_weight: λ of the head's only auxiliary loss; 0 leaves it out.
        aux_weights: λ of each of several auxiliary losses, by name.
        views: how many plain views of a clip are used, of those in the cache; None: all, see `RunConfig`.
        augmented_views: how many augmented views of a training clip are used; None: all.
        settings: head options by dotted name, as in `--set`.
        schedule: changes of the grid's schedule, by field.
        start: name of the system whose run, of the same protocol and seed, this one starts from; everything trains.
        parts: of the head that are taken from it, see `FineTuneConfig`; empty: all of it.
        distil_from: names of systems whose runs, of the same protocol and seed, are this one's teachers, see
            `DistilConfig`; of each its tasks, STREAM/SPACE, where the name has several; else nothing.
        tasks: STREAM/SPACE of a head of several streams or label spaces, each with a row of its own; empty: the first.
            Systems whose tasks are others may have one name, as a single stream of each.
        product: for each factor its values: head, preset, streams, aux_weight, views, augmented_views,
            aux_weights.LOSS, settings.OPTION or schedule.FIELD.
        published: "top1", "top5", "map" or "weighted_map" in percent from a paper that ifcar does not know.
    """

    name: str
    head: str | None = None
    preset: str | None = None
    streams: Annotated[str | None, Option("appearance, layout or both.")] = None
    aux_weight: Annotated[
        float,
        Option(
            "Weight λ of a head's only auxiliary loss; 0: without. sfi's 5 is the paper's, for a sum over N = 4 "
            "slots (over 11 it cost 12.9 points): with more, lower it or --set prediction_reduction=mean."
        ),
    ] = 0.0
    aux_weights: Annotated[
        Mapping[str, float],
        Option("NAME=W: weight of one of several auxiliary losses (`ifcar list heads`); may be repeated.", "--aux"),
    ] = field(default_factory=dict)
    views: Annotated[
        int | None,
        Option("Plain views of a clip to train and test on, spread over it.", default="all"),
        Bounds(least=1),
    ] = None
    augmented_views: Annotated[
        int | None, Option("Augmented views of a training clip to draw from.", default="all"), Bounds(least=0)
    ] = None
    settings: Annotated[Mapping[str, Any], Option("KEY=VALUE of a head option; may be repeated.", "--set")] = field(
        default_factory=dict
    )
    schedule: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    parts: tuple[str, ...] = ()
    distil_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    product: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        for factor, values in self.product.items():
            group, _, key = factor.partition(".")
            if factor not in SINGLE_FACTORS and not (group in GROUP_FACTORS and key):
                known = [*SINGLE_FACTORS, *(f"{g}.NAME" for g in GROUP_FACTORS)]
                raise InputError(
                    f"system {self.name!r}: unknown factor {factor!r} in product{nearest_of(factor, known)}"
                )
            if not values:
                raise InputError(f"system {self.name!r}: factor {factor!r} of its product has no values")
        for place in re.findall(r"\{([^{}]*)\}", self.name):
            if place not in self.product:
                raise InputError(f"system {self.name!r}: {{{place}}} in its name is no factor of its product")
        if self.head is None and "head" not in self.product:
            raise InputError(f"system {self.name!r}: names no head; `ifcar list heads` lists them")
        if len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"system {self.name!r}: tasks are {', '.join(self.tasks)}; expected each once")
        if self.parts and self.start is None:
            raise InputError(f"system {self.name!r}: parts are taken from another system; name it as start")
        check_figures(f"system {self.name!r}", self.published)


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """A late fusion of systems, seed by seed.

    Args:
        name: what the table calls it.
        members: names of systems.
        weights: "equal", or "held_out": chosen on the held-out part of the training split.
        published: as that of a system.
    """

    name: str
    members: tuple[str, ...]
    weights: Literal["equal", "held_out"] = "equal"
    published: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.members) < 2:
            raise InputError(f"ensemble {self.name!r}: needs at least two members")
        if len(set(self.members)) < len(self.members):
            raise InputError(f"ensemble {self.name!r}: names a member twice; expected each once")
        check_figures(f"ensemble {self.name!r}", self.published)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceConfig:
    """A line that is, seed by seed, the best of a system's product.

    Args:
        name: what the table calls it.
        of: the system, by its name in the file.
        by: what is best: "held_out", on the part of the training clips that no run fits; or "test", on the test clips,
            as some papers do: a note under the table says that it flatters.
    """

    name: str
    of: str
    by: Literal["held_out", "test"] = "held_out"

    def __post_init__(self) -> None:
        check_fields(self)
