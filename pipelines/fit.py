"""`ifcar fit-head`: train one head from a cache, and evaluate it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifcar.cache.reader import CacheReader, open_cache
from ifcar.cache.schema import ProtocolTable, Split
from ifcar.errors import CacheMismatchError, InputError, nearest
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head
from ifcar.pipelines.batches import BatchReader, Examples, Memory, read_examples
from ifcar.pipelines.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.checkpoint import save_tensors
from ifcar.pipelines.configs import from_plain, set_option, to_plain
from ifcar.pipelines.events import write_events
from ifcar.pipelines.phases import train_phases
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.runs import (
    Run,
    RunConfig,
    fresh_folder,
    is_finished,
    open_run,
    read_config,
    write_config,
    write_results,
)
from ifcar.pipelines.schedule import Plan, ScheduleConfig, make_plan
from ifcar.pipelines.scores import measure, predict

PREFERRED_PROTOCOL = "compositional"


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """A finished run and how it was trained.

    Args:
        run: the run.
        plan: the schedule that was used.
        steps: optimiser steps behind the weights.
        best_step: the stopping point, when a held-out part chose it.
        refit: whether the weights come from a second training on the whole training split.
    """

    run: Run
    plan: Plan
    steps: int
    best_step: int | None
    refit: bool


def make_run_config(
    head: str,
    cache: Path,
    *,
    protocol: str | None = None,
    preset: str = "paper",
    streams: str | None = None,
    aux_weight: float = 0.0,
    settings: Sequence[str] = (),
    schedule: ScheduleConfig | None = None,
    seed: int = 0,
) -> RunConfig:
    """Resolve a head's preset, streams, auxiliary loss and single settings to a run's config.

    Args:
        head: registered name.
        cache: the cache's path.
        protocol: default: "compositional" where there is one, else the only one.
        preset: one of the head's presets.
        streams: "appearance", "layout" or "both".
        aux_weight: λ of the head's auxiliary loss; 0 leaves it out.
        settings: "key=value" changes of single options, "joint.dropout=0.5".
        schedule: training schedule.
        seed: of everything random.

    Raises:
        InputError: an unknown name, or a setting that the head would ignore.
    """
    kind = HEADS.get(head)
    if preset not in kind.presets:
        raise InputError(
            f"head {head!r} has no preset {preset!r}{nearest(preset, kind.presets)} Known: {', '.join(kind.presets)}"
        )
    options = to_plain(kind.presets[preset])
    if streams is not None:
        if "joint" not in options:
            raise InputError(f"--streams {streams} would be ignored: head {head!r} has one stream only")
        options["joint"]["streams"] = streams
    if aux_weight < 0:
        raise InputError(f"--aux-weight is {aux_weight}; expected 0 (off) or more")
    if aux_weight and not kind.auxiliary:
        raise InputError(f"--aux-weight {aux_weight:g} would be ignored: head {head!r} has no auxiliary loss")
    aux_weights = {name: aux_weight for name in kind.auxiliary if aux_weight}
    for name in kind.auxiliary:
        options[name] = name in aux_weights
    for assignment in settings:
        set_option(options, assignment)
    from_plain(kind.config_type, options, f"head {head}")
    return RunConfig(
        head=head,
        cache=cache,
        protocol=protocol or default_protocol(cache),
        preset=preset,
        options=options,
        aux_weights=aux_weights,
        schedule=schedule or ScheduleConfig(),
        seed=seed,
    )


def default_protocol(cache: Path) -> str:
    """Return "compositional", or the only protocol of a cache."""
    reader = open_cache(cache)
    names = reader.protocol_names()
    reader.close()
    if PREFERRED_PROTOCOL in names:
        return PREFERRED_PROTOCOL
    if len(names) == 1:
        return names[0]
    raise InputError(f"{cache}: choose one with --protocol: {', '.join(names) or 'the cache has no protocol'}")


def run_name(config: RunConfig) -> str:
    """Return the folder name that a run gets by default."""
    joint = config.options.get("joint")
    streams = joint["streams"] if isinstance(joint, Mapping) and joint["streams"] != "both" else ""
    aux = "-".join(f"{name}{weight:g}" for name, weight in config.aux_weights.items())
    preset = "" if config.preset == "paper" else config.preset
    parts = (config.head, streams, aux, preset, config.protocol, f"seed{config.seed}")
    return "-".join(part for part in parts if part)


def fit(
    config: RunConfig,
    progress: Progress,
    *,
    out: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    memory: Memory = "auto",
) -> FitResult:
    """Train a head, evaluate it on the training and test parts, and write its run folder.

    Args:
        config: what to train on what.
        progress: told about every round.
        out: run folder; default: a fresh one named after the config.
        resume: go on with a stopped run of the same config in `out`.
        device: default: cuda where there is one.
        memory: see `BatchReader`.

    Raises:
        InputError, CacheMismatchError: config, cache and folder do not go together.
        NonFiniteError: the loss stopped being a number.
    """
    started = time.perf_counter()
    reader = open_cache(config.cache)
    if config.fingerprint and config.fingerprint != reader.fingerprint:
        raise CacheMismatchError(
            f"{config.cache}: fingerprint {reader.fingerprint[:12]}…, but the run's config was made for "
            f"{config.fingerprint[:12]}…; name the right --cache, or train a new run"
        )
    config = replace(config, fingerprint=reader.fingerprint)
    protocol = reader.protocol(config.protocol)
    if protocol.label_kind != "single":
        raise InputError(f"protocol {protocol.name!r} has several labels a clip, which this version does not train on")
    trained, tested = read_examples(reader, protocol, Split.TRAIN), read_examples(reader, protocol, Split.TEST)
    head = build_head(config, reader, protocol)
    arrays = head.reads(head_options(config))
    plan = make_plan(config.schedule, len(trained), reads_appearance=any("features" in name for name in arrays))
    path = _open_folder(out or fresh_folder(run_name(config)), config, resume=resume)
    batches = open_batches(reader, arrays, [trained, tested], device, memory)
    progress.say(f"{config.head}: {batches.describe()}")
    head.to(batches.device)
    outcome = train_phases(config, head, batches, trained, protocol, plan, path, reader.clip_ids, progress)
    predictions = [predict(head, batches, part, reader.clip_ids) for part in (trained, tested)]
    if outcome.held_out is not None:
        predictions.append(outcome.held_out)
    save_tensors(path / "model.safetensors", dict(head.state_dict()))
    metrics = [measure(p, seed=config.seed, started=started) for p in predictions]
    write_events(path / "events", outcome.history, metrics)
    write_results(path, predictions, metrics)
    (path / CHECKPOINT).unlink(missing_ok=True)
    reader.close()
    return FitResult(
        run=open_run(path), plan=plan, steps=outcome.steps, best_step=outcome.best_step, refit=outcome.refit
    )


def head_options(config: RunConfig) -> Any:
    """Return the head's config dataclass of a run."""
    return from_plain(HEADS.get(config.head).config_type, config.options, f"head {config.head}")


def build_head(config: RunConfig, reader: CacheReader, protocol: ProtocolTable) -> Head:
    """Build a run's head for a cache, with weights drawn from the run's seed."""
    torch.manual_seed(config.seed)
    return HEADS.get(config.head)(head_options(config), reader.spec, len(protocol.classes))


def open_batches(
    reader: CacheReader, arrays: tuple[str, ...], parts: Sequence[Examples], device: str | None, memory: Memory
) -> BatchReader:
    """Open the rows of these parts for random access."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {chosen}: torch sees no CUDA device; use --device cpu")
    rows = np.concatenate([part.rows[part.usable] for part in parts])
    return BatchReader(reader, arrays, rows, torch.device(chosen), memory)


def _open_folder(path: Path, config: RunConfig, *, resume: bool) -> Path:
    """Make the run folder, or check that the stopped run in it is of this config."""
    if is_finished(path):
        raise InputError(f"{path}: holds a finished run; name another --out")
    if (path / "config.yaml").is_file():
        if not resume:
            raise InputError(f"{path}: holds a run that was stopped; go on with --resume, or name another --out")
        stopped = read_config(path / "config.yaml")
        differing = [k for k, v in to_plain(config).items() if to_plain(stopped).get(k) != v]
        if differing:
            raise InputError(f"{path}: the stopped run has another {', '.join(differing)}; --resume needs the same")
        return path
    if resume:
        raise InputError(f"{path}: no stopped run to resume")
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, config)
    return path
