"""From a user's options to a run's config, and from there to one that names its data exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ifcar.cache.open import open_cache
from ifcar.cache.protocols import UNNAMED, ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.errors import CacheMismatchError, InputError, nearest_of
from ifcar.heads.catalog import HEADS
from ifcar.pipelines.configs import from_plain, parse_assignment, set_option, to_plain
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.data import protocol_digest
from ifcar.pipelines.runs.schedule import ScheduleConfig

PREFERRED_PROTOCOL = "compositional"


def make_run_config(
    head: str,
    cache: Path,
    *,
    protocol: str | None = None,
    labels: str | None = None,
    preset: str = "paper",
    streams: str | None = None,
    aux_weight: float = 0.0,
    settings: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    schedule: ScheduleConfig | None = None,
    seed: int = 0,
) -> RunConfig:
    """Resolve a head's preset, streams, auxiliary loss and single settings to a run's config.

    Args:
        head: registered name.
        cache: the cache's path.
        protocol: default: "compositional" where there is one, else the only one.
        labels: the label space; default: the protocol's first.
        preset: one of the head's presets.
        streams: "appearance", "layout" or "both".
        aux_weight: λ of the head's auxiliary loss; 0 leaves it out.
        settings: "key=value" changes of single options, "joint.dropout=0.5".
        options: the same as values by dotted name.
        schedule: training schedule.
        seed: of everything random.

    Raises:
        InputError: an unknown name, or a setting that the head would ignore.
    """
    kind = HEADS.get(head)
    if preset not in kind.presets:
        raise InputError(f"head {head!r} has no preset {preset!r}{nearest_of(preset, kind.presets)}")
    resolved = to_plain(kind.presets[preset])
    if streams is not None:
        if "joint" not in resolved:
            raise InputError(f"--streams {streams} would be ignored: head {head!r} has one stream only")
        resolved["joint"]["streams"] = streams
    if not 0 <= aux_weight < math.inf:
        raise InputError(f"aux-weight is {aux_weight}; expected 0 (off) or more")
    if aux_weight and not kind.auxiliary:
        raise InputError(f"--aux-weight {aux_weight:g} would be ignored: head {head!r} has no auxiliary loss")
    aux_weights = {name: aux_weight for name in kind.auxiliary if aux_weight}
    for name in kind.auxiliary:
        resolved[name] = name in aux_weights
    for assignment in settings:
        key, value = parse_assignment(assignment)
        set_option(resolved, key, value)
    for key, value in (options or {}).items():
        set_option(resolved, key, value)
    from_plain(kind.config_type, resolved, f"head {head}")
    return RunConfig(
        head=head,
        cache=cache,
        protocol=protocol or default_protocol(cache),
        labels=labels,
        preset=preset,
        options=resolved,
        aux_weights=aux_weights,
        schedule=schedule or ScheduleConfig(),
        seed=seed,
    )


def default_protocol(cache: Path) -> str:
    """Return "compositional", or the only protocol of a cache."""
    reader = open_cache(cache)
    names = reader.protocol_names()
    reader.close()
    return choose_protocol(names, cache)


def choose_protocol(names: Sequence[str], data: Path) -> str:
    """Return "compositional", or the only one of these names. Raises InputError when the user has to choose."""
    if PREFERRED_PROTOCOL in names:
        return PREFERRED_PROTOCOL
    if len(names) == 1:
        return names[0]
    raise InputError(f"{data}: choose one with --protocol: {', '.join(names) or 'there is none'}")


def head_options(config: RunConfig) -> Any:
    """Return the head's config dataclass of a run, with the auxiliary losses that have a weight.

    Raises:
        InputError: an option unknown or out of range, or one of an auxiliary loss that contradicts the weights.
    """
    kind, weights = HEADS.get(config.head), config.aux_weights
    for name in weights:
        if name not in kind.auxiliary:
            known = f"; it has {', '.join(kind.auxiliary)}" if kind.auxiliary else ""
            raise InputError(f"aux_weights: head {config.head!r} has no auxiliary loss {name!r}{known}")
    weighed = {name: name in weights for name in kind.auxiliary}
    for name, expected in weighed.items():
        if config.options.get(name, expected) != expected:
            raise InputError(
                f"head {config.head!r}: option {name} is {config.options[name]}, but its loss has "
                f"{'a' if expected else 'no'} weight; the weight alone builds it: give --aux-weight (in files "
                f"aux_weight, in a run's aux_weights) and leave {name} out"
            )
    return from_plain(kind.config_type, {**config.options, **weighed}, f"head {config.head}")


def chosen_labels(protocol: ProtocolTable) -> str | None:
    """Return how a run's config names the label space of a protocol with one: None where it has no name of its own."""
    return None if protocol.labels.name == UNNAMED else protocol.labels.name


def resolve(config: RunConfig, reader: CacheReader, protocol: ProtocolTable) -> RunConfig:
    """Fill in the cache's fingerprint, the label space and the protocol's digest.

    Args:
        config: what to resolve.
        reader: its cache.
        protocol: its protocol, with its label space alone.

    Raises:
        CacheMismatchError: the config was made for another cache, or for another state of its protocol.
    """
    if config.fingerprint and config.fingerprint != reader.fingerprint:
        raise CacheMismatchError(
            f"{config.cache}: fingerprint {reader.fingerprint[:12]}…, but the run's config was made for "
            f"{config.fingerprint[:12]}…; name the right --cache, or train a new run"
        )
    digest = protocol_digest(reader.status(), protocol, reader.manifest.num_augmented_views)
    if config.protocol_digest and config.protocol_digest != digest:
        raise CacheMismatchError(
            f"{config.cache}: protocol {protocol.name!r} or the extracted rows changed since the run's config was "
            "made; train a new run"
        )
    labels = chosen_labels(protocol)
    return replace(config, fingerprint=reader.fingerprint, labels=labels, protocol_digest=digest)
