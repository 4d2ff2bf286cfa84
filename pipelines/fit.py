"""`ifcar fit-head`: train one head from a cache, and evaluate it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ifcar.cache.reader import CacheReader, open_cache
from ifcar.cache.schema import CacheSpec, ProtocolTable, Split
from ifcar.errors import InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head
from ifcar.pipelines.batches import BatchReader, Examples, Memory, read_examples
from ifcar.pipelines.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.checkpoint import load_tensors, save_tensors
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.events import write_events
from ifcar.pipelines.phases import train_phases
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.resolve import head_options, resolve
from ifcar.pipelines.run_config import FineTuneConfig, RunConfig, run_id, run_name
from ifcar.pipelines.run_data import RunData, write_run_data
from ifcar.pipelines.runs import (
    Run,
    fresh_folder,
    is_finished,
    open_run,
    read_config,
    write_config,
    write_results,
)
from ifcar.pipelines.schedule import Plan, make_plan
from ifcar.pipelines.scores import measure, predict


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
    protocol = reader.protocol(config.protocol)
    config = resolve(config, reader, protocol)
    if protocol.label_kind != "single":
        raise InputError(f"protocol {protocol.name!r} has several labels a clip, which this version does not train on")
    trained, tested = read_examples(reader, protocol, Split.TRAIN), read_examples(reader, protocol, Split.TEST)
    head = build_head(config, reader.spec, len(protocol.classes))
    if config.fine_tune is not None:
        config = start_from_base(config, config.fine_tune, head)
    arrays = head.reads(head_options(config))
    plan = make_plan(config.schedule, len(trained), reads_appearance=any("features" in name for name in arrays))
    path = _open_folder(out or fresh_folder(run_name(config)), config, resume=resume)
    write_run_data(path, run_data(reader, protocol))
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


def build_head(config: RunConfig, spec: CacheSpec, num_classes: int) -> Head:
    """Build a run's head for a cache's dimensions, with weights drawn from the run's seed."""
    torch.manual_seed(config.seed)
    return HEADS.get(config.head)(head_options(config), spec, num_classes)


def start_from_base(config: RunConfig, fine_tune: FineTuneConfig, head: Head) -> RunConfig:
    """Load the base run's weights into `head`, keeping a new classifier where the classes differ.

    Returns:
        The config with the base run's id.

    Raises:
        MissingDataError, InputError: the base run is not finished, is another head, or was trained on another cache.
    """
    base = open_run(fine_tune.base)
    if not isinstance(base.config, RunConfig) or base.config.head != config.head:
        raise InputError(
            f"{base.path}: a run of {base.config.head!r}; a {config.head!r} run can start from its own kind"
        )
    differing = [k for k in ("fingerprint", "options") if getattr(base.config, k) != getattr(config, k)]
    if differing:
        raise InputError(f"{base.path}: another {', '.join(differing)} than the run that is to start from it")
    base_id = run_id(base.config)
    if fine_tune.base_id not in ("", base_id):
        raise InputError(f"{base.path}: not the run that was started from; it has been trained anew since")
    weights = load_tensors(base.path / "model.safetensors")
    own = head.state_dict()
    kept = {k for k in own if k.startswith("classifier.") and weights[k].shape != own[k].shape}
    head.load_state_dict({k: own[k] if k in kept else v for k, v in weights.items()})
    if fine_tune.train == "classifier":
        for name, parameter in head.named_parameters():
            parameter.requires_grad_(name.startswith("classifier."))
    return replace(config, fine_tune=replace(fine_tune, base_id=base_id))


def run_data(reader: CacheReader, protocol: ProtocolTable) -> RunData:
    """Return the facts that a run keeps about its data."""
    return RunData(
        spec=reader.spec,
        identity=reader.identity,
        protocol=protocol.name,
        classes=protocol.classes,
        num_train=len(protocol.clips(Split.TRAIN)),
        num_test=len(protocol.clips(Split.TEST)),
    )


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
