"""From a user's options to a run's config, and from there to one that names its data exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ifcar.cache.addresses import place_of
from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import PREFERRED_PROTOCOL, UNNAMED, ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.errors import CacheMismatchError, InputError, nearest_of
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head
from ifcar.heads.schedules import common_schedule, schedules_on
from ifcar.pipelines.configs import from_plain, set_option, to_plain
from ifcar.pipelines.runs.config import RunConfig, without_loss_switches
from ifcar.pipelines.runs.data import protocol_digest
from ifcar.pipelines.runs.schedule import OWN_KINDS, ScheduleConfig


def make_run_config(
    head: str,
    cache: Path | str,
    *,
    protocol: str | None = None,
    labels: str | None = None,
    preset: str = "paper",
    streams: str | None = None,
    aux_weight: float | None = None,
    aux_weights: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    schedule: ScheduleConfig | None = None,
    seed: int = 0,
    views: int | None = None,
    augmented_views: int | None = None,
) -> RunConfig:
    """Resolve a head's preset, streams, auxiliary loss and single settings to a run's config.

    Args:
        head: registered name.
        cache: the cache's path.
        protocol: default: "compositional" where there is one, else the only one.
        labels: the label space; default: the protocol's first.
        preset: one of the head's presets.
        streams: "appearance", "layout" or "both".
        aux_weight: λ of the head's only auxiliary loss; None or 0 leaves it out.
        aux_weights: λ of each of several auxiliary losses; 0 leaves one out.
        settings: values of single options by dotted name, as "joint.dropout".
        schedule: training schedule.
        seed: of everything random.
        views: plain views of a clip that are used; default: all.
        augmented_views: augmented views of a training clip that are used; default: all.

    Raises:
        InputError: an unknown name, or a setting that the head would ignore.
    """
    cache = place_of(cache)
    kind = HEADS.get(head)
    if preset not in kind.presets:
        raise InputError(f"head {head!r} has no preset {preset!r}{nearest_of(preset, kind.presets)}")
    resolved = to_plain(kind.presets[preset])
    if streams is not None:
        if "joint" not in resolved:
            raise InputError(f"--streams {streams} would be ignored: head {head!r} has one stream only")
        resolved["joint"]["streams"] = streams
    weights = loss_weights(kind, aux_weight, aux_weights or {})
    given = without_loss_switches(head, settings or {}, weights)
    for key, value in given.items():
        set_option(resolved, key, value)
    from_plain(kind.config_type, resolved, f"head {head}")
    return RunConfig(
        head=head,
        cache=cache,
        protocol=protocol or default_protocol(cache),
        labels=labels,
        preset=preset,
        options=resolved,
        aux_weights=weights,
        schedule=schedule or ScheduleConfig(),
        seed=seed,
        views=views,
        augmented_views=augmented_views,
    )


def loss_weights(kind: type[Head], aux_weight: float | None, aux_weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights of a head's auxiliary losses that are on, in the order of the head.

    Args:
        kind: the head.
        aux_weight: of its only auxiliary loss; None or 0: off.
        aux_weights: of each by name; 0: off.

    Raises:
        InputError: the head has no such loss, several and one weight for all, or a weight below 0.
    """
    kind.check_losses(aux_weights)
    names, found = tuple(kind.auxiliary), dict(aux_weights)
    if aux_weight is not None:
        if not 0 <= aux_weight < math.inf:
            raise InputError(f"aux-weight is {aux_weight}; expected 0 (off) or more")
        if aux_weight and not names:
            raise InputError(f"--aux-weight {aux_weight:g} would be ignored: head {kind.name!r} has no auxiliary loss")
        if aux_weight and len(names) > 1:
            each = " ".join(f"--aux {name}=W" for name in names)
            raise InputError(f"head {kind.name!r} has several auxiliary losses; give each its own weight: {each}")
        if aux_weight and found:
            raise InputError("--aux-weight and --aux say the same of a head with one auxiliary loss; give one of them")
        if aux_weight:
            found = {names[0]: aux_weight}
    for name, weight in found.items():
        if not 0 <= weight < math.inf:
            raise InputError(f"weight of the auxiliary loss {name!r} is {weight}; expected 0 (off) or more")
    return {name: found[name] for name in names if found.get(name)}


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
    """Return the head's config dataclass of a run. Raises InputError when an option is unknown or out of range."""
    return from_plain(HEADS.get(config.head).config_type, config.options, f"head {config.head}")


def head_arrays(config: RunConfig, spec: CacheSpec | None = None) -> tuple[str, ...]:
    """Return the names of the arrays that a run's head reads.

    Args:
        config: of the run.
        spec: of the cache that they are to be read from, where that is known.

    Raises:
        InputError: an option unknown or out of range, or a weight of an auxiliary loss that the head lacks.
        CacheMismatchError: the cache lacks one of them.
    """
    kind, options = HEADS.get(config.head), head_options(config)
    if spec is not None:
        try:
            kind.check_reads(options, spec, config.aux_weights)
        except CacheMismatchError as error:
            raise CacheMismatchError(f"{config.cache}: {error}") from error
    return kind.arrays(options, config.aux_weights)


def chosen_labels(protocol: ProtocolTable) -> str | None:
    """Return how a run's config names the label space of a protocol with one: None where it has no name of its own."""
    return None if protocol.labels.name == UNNAMED else protocol.labels.name


def resolve(config: RunConfig, reader: CacheReader, protocol: ProtocolTable) -> RunConfig:
    """Fill in the cache's fingerprint, the label space, the protocol's digest and the published schedule.

    Args:
        config: what to resolve.
        reader: its cache.
        protocol: its protocol, with its label space alone.

    Raises:
        InputError: the head has no schedule of the name that the config gives.
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
    config = replace(config, options=_with_cache(config, reader))
    schedule = config.schedule
    pooled = reader.identity.get("backbone", {}).get("pooled")
    if not config.fingerprint and pooled is not None:
        try:
            HEADS.get(config.head).check_pooled(head_options(config), reader.spec, pooled)
        except CacheMismatchError as error:
            raise CacheMismatchError(f"{config.cache}: {error}") from error
    # What was resolved once stays as it is: published schedules may change from one version to the next.
    if not config.fingerprint and schedule.published is None:
        schedule = _with_published(config, reader)
    return replace(config, fingerprint=reader.fingerprint, labels=labels, protocol_digest=digest, schedule=schedule)


def _with_cache(config: RunConfig, reader: CacheReader) -> Mapping[str, Any]:
    """Return the head's options with what they leave to the cache; what was resolved once stays as it is."""
    options = head_options(config)
    chosen = HEADS.get(config.head).for_cache(options, reader.spec)
    return config.options if chosen == options else to_plain(chosen)


def _with_published(config: RunConfig, reader: CacheReader) -> ScheduleConfig:
    appearance = reader.spec.reads_features(head_arrays(config, reader.spec))
    dataset, own = str(reader.identity["dataset"]["name"]), HEADS.get(config.head).schedules
    known = schedules_on(own, dataset, reads_appearance=appearance)
    name = "paper" if config.schedule.kind in OWN_KINDS else config.schedule.kind
    if name not in known:
        known_kinds = (*OWN_KINDS, *known)
        raise InputError(
            f"schedule is {name!r}, which head {config.head!r} does not have on {dataset}"
            f"{nearest_of(name, known_kinds)}"
        )
    is_common = known[name] == common_schedule(reads_appearance=appearance)
    return replace(config.schedule, published=None if is_common else known[name])
