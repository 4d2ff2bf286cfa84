"""`ifcar fit-head`: train one head from a cache, and evaluate it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.lock import locked
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.errors import CacheMismatchError, InputError, one_line
from ifcar.extract.engine import choose_device
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head
from ifcar.pipelines.feed.batches import BatchReader, Examples, read_examples
from ifcar.pipelines.feed.boxes import check_boxes
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.feed.memory import Memory
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.runs.config import FineTuneConfig, RunConfig, check_resumable, run_id, run_name
from ifcar.pipelines.runs.data import RunData, write_run_data
from ifcar.pipelines.runs.finished import (
    Run,
    fresh_folder,
    is_finished,
    open_run,
    read_config,
    write_config,
    write_history,
    write_results,
)
from ifcar.pipelines.runs.places import open_its_cache
from ifcar.pipelines.runs.resolve import head_options, resolve
from ifcar.pipelines.scoring.scores import Predictions, measure, predict
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.checkpoint import load_tensors, save_tensors
from ifcar.pipelines.training.events import write_events
from ifcar.pipelines.training.jobs import Failure, Job
from ifcar.pipelines.training.phases import Data, Entry, Outcome, stack_states, train_phases
from ifcar.pipelines.training.schedule import Plan, make_plan
from ifcar.pipelines.training.trainer import NonFiniteError
from ifcar.shell_words import command


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
    if config.live is not None:
        raise InputError("this config is of a fine-tuned run; train it with `ifcar finetune`, --config")
    path = out or fresh_folder(run_name(config))
    if is_finished(path):
        raise InputError(f"{path}: holds a finished run; name another --out")
    stopped = (path / "config.yaml").is_file()
    if stopped and not resume:
        raise InputError(f"{path}: holds a run that was stopped; go on with --resume, or name another --out")
    if resume and not stopped:
        raise InputError(f"{path}: no stopped run to resume")
    try:
        (result,) = fit_together([Job(config=config, path=path)], path, progress, device=device, memory=memory)
    except KeyboardInterrupt:
        resume_it = command("ifcar", "fit-head", "--resume", "--out", path)
        progress.say(f"{path}: stopped; {resume_it} goes on from its last checkpoint")
        raise
    if isinstance(result, Failure):
        raise NonFiniteError(result.reason)
    return result


def fit_together(
    jobs: Sequence[Job],
    folder: Path,
    progress: Progress,
    *,
    device: str | None = None,
    memory: Memory = "auto",
) -> list[FitResult | Failure]:
    """Train the runs of a fleet in lockstep, evaluate each, and write its run folder unless it is finished.

    Goes on from the checkpoint in `folder` where there is one.

    Args:
        jobs: runs that `ifcar.pipelines.training.fleet.fleet_key` does not tell apart.
        folder: of the fleet's checkpoint; the run's own for a fleet of one.
        progress: told about every round.
        device: default: cuda where there is one.
        memory: see `BatchReader`.

    Returns:
        For each run what it became, or why its numbers stopped being finite.

    Raises:
        InputError, CacheMismatchError: config, cache and folder of a run do not go together.
        LockedError: another process trains one of the runs.
    """
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(locked(job.path))
        return _fit_locked(jobs, folder, progress, device, memory)


def _fit_locked(
    jobs: Sequence[Job], folder: Path, progress: Progress, device: str | None, memory: Memory
) -> list[FitResult | Failure]:
    started = time.perf_counter()
    reader = open_its_cache(jobs[0].config.cache, jobs[0].path)
    protocol = reader.protocol(jobs[0].config.protocol).only(jobs[0].config.labels)
    trained, tested = read_examples(reader, protocol, Split.TRAIN), read_examples(reader, protocol, Split.TEST)
    entries = [_enter(job, reader, protocol, len(trained)) for job in jobs]
    config = entries[0].config
    arrays = HEADS.get(config.head).reads(head_options(config))
    division = hold_out(trained, protocol, entries[0].plan.held_out)
    notes = [division.note] if division.note else []
    notes += check_boxes(reader, config.head, arrays, trained, tested)
    left = [not is_finished(entry.path) for entry in entries]
    for entry in itertools.compress(entries, left):
        _open_folder(entry.path, entry.config)
        write_run_data(entry.path, run_data(reader, protocol, notes))
    batches = open_batches(reader, arrays, [trained, tested], device, memory)
    for line in (batches.describe(), *notes):
        progress.say(f"{config.head}: {line}")
    data = Data(batches=batches, trained=trained, division=division, protocol=protocol)
    outcomes = train_phases(entries, data, folder, progress)
    predictions = _predict(entries, outcomes, [trained, tested], data)
    results: list[FitResult | Failure] = []
    for number, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True)):
        if outcome.failure is not None:
            results.append(Failure(path=entry.path, reason=outcome.failure))
            continue
        if left[number]:
            _write(entry, outcome, predictions[number], started)
        results.append(
            FitResult(
                run=open_run(entry.path),
                plan=entry.plan,
                steps=outcome.steps,
                best_step=outcome.best_step,
                refit=outcome.refit,
            )
        )
        (entry.path / CHECKPOINT).unlink(missing_ok=True)
    reader.close()
    return results


def _predict(
    entries: Sequence[Entry],
    outcomes: Sequence[Outcome],
    parts: Sequence[Examples],
    data: Data,
) -> dict[int, list[Predictions]]:
    """Score the parts with the final weights, the held-out part with the best ones, of every run that did not fail."""
    done = [number for number, outcome in enumerate(outcomes) if outcome.failure is None]
    predictions: dict[int, list[Predictions]] = {number: [] for number in done}
    sides = [([outcomes[n].weights for n in done], list(parts))]
    if data.division.held_out is not None:
        sides.append(([outcomes[n].best_weights for n in done], [data.division.held_out]))
    for states, scored in sides if done else ():
        stack = stack_states([entries[n] for n in done], states, data.batches.device)
        for part in scored:
            for number, found in zip(done, predict(stack, data.batches, part), strict=True):
                predictions[number].append(found)
    return predictions


def _enter(job: Job, reader: CacheReader, protocol: ProtocolTable, num_clips: int) -> Entry:
    config = resolve(job.config, reader, protocol)
    head = build_head(config, reader.spec, len(protocol.labels.classes))
    if config.fine_tune is not None:
        config = start_from_base(config, config.fine_tune, head)
    appearance = reader.spec.reads_features(head.reads(head_options(config)))
    plan = make_plan(config.schedule, num_clips, reads_appearance=appearance)
    return Entry(config=config, path=job.path, head=head, plan=plan)


def _write(entry: Entry, outcome: Outcome, predictions: Sequence[Predictions], started: float) -> None:
    """Write everything that a finished run holds, its metrics last."""
    metrics = [measure(p, seed=entry.config.seed, started=started) for p in predictions]
    save_tensors(entry.path / "model.safetensors", outcome.weights)
    write_history(entry.path, outcome.history)
    write_events(entry.path / "events", outcome.history, metrics)
    write_results(entry.path, predictions, metrics)


def build_head(config: RunConfig, spec: CacheSpec, num_classes: int) -> Head:
    """Build a run's head for a cache's arrays, with weights drawn from the run's seed.

    Raises:
        CacheMismatchError: the cache lacks an array that the head reads.
        InputError: options out of range, or of a head that does not fit into memory.
    """
    torch.manual_seed(config.seed)
    options = head_options(config)
    try:
        return HEADS.get(config.head)(options, spec, num_classes)
    except CacheMismatchError as error:
        raise CacheMismatchError(f"{config.cache}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        reason = one_line(error)[:200]
        raise InputError(f"head {config.head!r} cannot be built with these options ({reason})") from error


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


def run_data(reader: CacheReader, protocol: ProtocolTable, notes: Sequence[str]) -> RunData:
    """Return the facts that a run keeps about its data."""
    return RunData(
        spec=reader.spec,
        identity=reader.identity,
        protocol=protocol.name,
        classes=protocol.labels.classes,
        num_train=len(protocol.clips(Split.TRAIN)),
        num_test=len(protocol.clips(Split.TEST)),
        label_kind=protocol.labels.kind,
        unlabelled=protocol.labels.unlabelled,
        labels=protocol.labels.name,
        over=protocol.labels.over,
        notes=tuple(notes),
    )


def open_batches(
    reader: CacheReader, arrays: tuple[str, ...], parts: Sequence[Examples], device: str | None, memory: Memory
) -> BatchReader:
    """Open the rows of these parts for random access."""
    rows = np.concatenate([part.rows[part.usable] for part in parts])
    return BatchReader(reader, arrays, rows, torch.device(choose_device(device)), memory)


def _open_folder(path: Path, config: RunConfig) -> None:
    """Make the run folder, or check that the stopped run in it is of this config."""
    if (path / "config.yaml").is_file():
        check_resumable(path, read_config(path / "config.yaml"), config)
        return
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, config)
