"""A run's head: built by its config, or started from another run's weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.streams import led_by
from ifcar.counts import count_of
from ifcar.errors import CacheMismatchError, InputError, nearest_of, one_line
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head
from ifcar.pipelines.runs.config import FineTuneConfig, RunConfig, run_id
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.resolve import head_options
from ifcar.pipelines.runs.weights import load_tensors


def build_head(config: RunConfig, spec: CacheSpec, num_classes: int) -> Head:
    """Build a run's head for a cache's arrays, with weights drawn from the run's seed.

    Raises:
        CacheMismatchError: the cache lacks an array that the head reads.
        InputError: options out of range, or of a head that does not fit into memory.
    """
    torch.manual_seed(config.seed)
    options = head_options(config)
    try:
        return HEADS.get(config.head).build(options, led_by(spec, config.labels), num_classes, config.aux_weights)
    except CacheMismatchError as error:
        raise CacheMismatchError(f"{config.cache}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        reason = one_line(error)[:200]
        raise InputError(f"head {config.head!r} cannot be built with these options ({reason})") from error


def start_from_base(config: RunConfig, fine_tune: FineTuneConfig, head: Head) -> tuple[RunConfig, str]:
    """Load the base run's weights into `head`, keeping a new classifier where the classes differ, or only named parts.

    Returns:
        The config with the base run's id, and a line on what starts from the seed where only parts were asked for.

    Raises:
        MissingDataError, InputError: the base run is not finished, is another head, was trained on another cache, or
            lacks a weight of a named part.
    """
    base = open_run(fine_tune.base)
    if not isinstance(base.config, RunConfig) or base.config.head != config.head:
        raise InputError(
            f"{base.path}: a run of {base.config.head!r}; a {config.head!r} run can start from its own kind"
        )
    differing = ["fingerprint"] if base.config.fingerprint != config.fingerprint else []
    if not fine_tune.parts:
        theirs, ours = (structure_of(c) for c in (base.config, config))
        differing += [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    if differing:
        parts = ", ".join(dict.fromkeys(key.partition(".")[0] for key in head.state_dict()))
        raise InputError(
            f"{base.path}: another {', '.join(differing)} than the run that is to start from it; name what both have "
            f"alike with --part: {parts}"
        )
    base_id = run_id(base.config)
    if fine_tune.base_id not in ("", base_id):
        raise InputError(f"{base.path}: not the run that was started from; it has been trained anew since")
    weights, own, note = load_tensors(base.path / "model.safetensors"), head.state_dict(), ""
    if fine_tune.parts:
        taken = _parts_of(weights, own, fine_tune.parts, base.path)
        absent = [key for key in own if key not in taken]
        of_parts = ", ".join(fine_tune.parts)
        note = f"{count_of(len(taken), f'weight of {of_parts} is')} another run's"
        note += f"; {count_of(len(absent), 'starts', 'start')} from the seed: {', '.join(absent)}" if absent else ""
        weights = {**own, **taken}
    kept = {k for k in own if k.startswith("classifier.") and weights[k].shape != own[k].shape}
    head.load_state_dict({k: own[k] if k in kept else v for k, v in weights.items()})
    if fine_tune.train == "classifier":
        for name, parameter in head.named_parameters():
            parameter.requires_grad_(name.startswith("classifier."))
    return replace(config, fine_tune=replace(fine_tune, base_id=base_id)), note


def trained_head(config: RunConfig, run: Path, spec: CacheSpec, num_classes: int) -> Head:
    """Return the head of a finished run with its weights, on the CPU and in evaluation mode.

    Args:
        config: the run's.
        run: its folder.
        spec: of its cache.
        num_classes: K.

    Raises:
        InputError: the weights are damaged, or another head's.
    """
    head, path = build_head(config, spec, num_classes), run / "model.safetensors"
    try:
        head.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise InputError(f"{path}: holds the weights of another head ({one_line(error)})") from error
    return head.eval()


def structure_of(config: RunConfig) -> dict[str, Any]:
    """Return what decides the layers of a run's head: its options, and which auxiliary losses are on."""
    return {**config.options, "auxiliary losses": sorted(config.aux_weights)}


def keys_of(part: str, state: Iterable[str]) -> list[str]:
    """Return the names of a part's weights. Raises InputError when a head with these weights has no such part."""
    names = list(state)
    found = [name for name in names if name.startswith(f"{part}.")]
    if not found:
        known = dict.fromkeys(name.partition(".")[0] for name in names)
        raise InputError(f"this head has no part {part!r}{nearest_of(part, known)}")
    return found


def _parts_of(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], parts: Sequence[str], path: Path
) -> dict[str, Tensor]:
    """Return the weights of some parts. Raises InputError when the two runs do not have them alike."""
    taken: dict[str, Tensor] = {}
    for part in parts:
        wanted = keys_of(part, own)
        unlike = [key for key in wanted if key not in weights or weights[key].shape != own[key].shape]
        if unlike:
            raise InputError(
                f"{path}: has no {unlike[0]} of the shape {tuple(own[unlike[0]].shape)} ({len(unlike)} of "
                f"{len(wanted)} weights of part {part!r}); start from a run with the same options of that part"
            )
        taken |= {key: weights[key] for key in wanted}
    return taken
