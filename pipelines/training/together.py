"""Train the runs of a fleet together, evaluate each, and write their folders; a run alone is a fleet of one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ifcar.cache.lock import locked
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.cache.streams import space_sizes
from ifcar.counts import count_of
from ifcar.pipelines.feed.batches import open_batches
from ifcar.pipelines.feed.boxes import check_boxes
from ifcar.pipelines.feed.examples import Examples, limit_views, read_examples
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.feed.memory import Memory
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.runs.data import RunData, write_run_data
from ifcar.pipelines.runs.finished import (
    Run,
    claim_folder,
    is_finished,
    open_run,
    write_remark,
)
from ifcar.pipelines.runs.heads import build_head, start_from_base
from ifcar.pipelines.runs.places import open_its_cache
from ifcar.pipelines.runs.resolve import head_arrays, resolve
from ifcar.pipelines.runs.schedule import Plan, make_plan
from ifcar.pipelines.runs.tasks import TaskResult, write_tasks
from ifcar.pipelines.runs.weights import save_tensors
from ifcar.pipelines.scoring.scores import Predictions, measure, predict
from ifcar.pipelines.stacks.objectives import check_smoothing
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.events import write_outcome
from ifcar.pipelines.training.jobs import FailedRun, Job
from ifcar.pipelines.training.phases import Data, Outcome, PreparedRun, stack_states, train_phases
from ifcar.pipelines.training.teachers import check_unseen, identified, taught


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


def fit_together(
    jobs: Sequence[Job],
    folder: Path,
    progress: Progress,
    *,
    device: str | None = None,
    memory: Memory = "auto",
) -> list[FitResult | FailedRun]:
    """Train the runs of a fleet in lockstep, evaluate each, and write its run folder unless it is finished.

    Goes on from the checkpoint in `folder` where there is one.

    Args:
        jobs: runs that `ifcar.pipelines.fleets.fleet.fleet_key` does not tell apart.
        folder: of the fleet's checkpoint; the run's own for a fleet of one.
        progress: told about every round.
        device: default: cuda where there is one.
        memory: see `BatchReader`.

    Returns:
        For each run what it became, or why its numbers stopped being finite.

    Raises:
        InputError, CacheMismatchError: config, cache and folder of a run do not go together, or the checkpoint is of
            other runs.
        LockedError: another process trains one of the runs.
    """
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(locked(job.path))
        return _fit_locked(jobs, folder, progress, device, memory)


def _fit_locked(
    jobs: Sequence[Job], folder: Path, progress: Progress, device: str | None, memory: Memory
) -> list[FitResult | FailedRun]:
    started = time.perf_counter()
    reader = open_its_cache(jobs[0].config.cache, jobs[0].path)
    spec = reader.spec_of(jobs[0].config.protocol)
    protocol = reader.protocol(jobs[0].config.protocol).led_by(jobs[0].config.labels, space_sizes(spec))
    views = jobs[0].config.views, jobs[0].config.augmented_views
    trained, tested = (
        limit_views(read_examples(reader, protocol, split), reader, *views) for split in (Split.TRAIN, Split.TEST)
    )
    entries = [_enter(job, reader, protocol, len(trained)) for job in jobs]
    config = entries[0].config
    arrays = head_arrays(config)
    tasks = entries[0].head.tasks
    kinds = {task.space: trained.labels_in(task.space).kind for task in tasks}
    check_smoothing(tasks, kinds, config.schedule.label_smoothing)
    if config.distil_from is not None:
        trained = taught(trained, tested, protocol, entries[0].head, config.distil_from)
    division = hold_out(trained, protocol, entries[0].plan.held_out)
    if config.distil_from is not None:
        check_unseen([open_run(path) for path in config.distil_from.runs], division)
    notes = [note for note in (tested.note, division.note, entries[0].note) if note]
    notes += entries[0].head.remarks()
    notes += check_boxes(reader, config.head, arrays, trained, tested)
    left = [not is_finished(entry.path) for entry in entries]
    for entry in itertools.compress(entries, left):
        claim_folder(entry.path, entry.config)
        provenance, streams = reader.manifest.provenance, reader.stream_identities()
        write_run_data(entry.path, RunData.of_protocol(spec, provenance, protocol, notes, streams))
    batches = open_batches(reader, arrays, [trained, tested], device, memory)
    for line in (batches.describe(), *notes):
        progress.say(f"{config.head}: {line}")
    data = Data(batches=batches, trained=trained, division=division, protocol=protocol)
    outcomes = train_phases(entries, data, folder, progress)
    predictions = _predict(entries, outcomes, [trained, tested], data)
    results: list[FitResult | FailedRun] = []
    for number, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True)):
        if outcome.failure is not None:
            results.append(FailedRun(path=entry.path, reason=outcome.failure))
            continue
        if left[number]:
            save_tensors(entry.path / "model.safetensors", outcome.weights)
            write_remark(entry.path, how_trained(jobs, batches.device))
            write_tasks(entry.path, _task_results(entry, outcome, tested, data))
            write_outcome(entry.path, outcome.history, predictions[number], seed=entry.config.seed, started=started)
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


def how_trained(jobs: Sequence[Job], device: torch.device) -> list[str]:
    """Return lines on how runs were trained, and how to make the same bytes again.

    The members of a fleet are multiplied as one stack, whose sums a processor adds in another order than those of a run
    alone; training enlarges the difference.
    """
    threads = torch.get_num_threads()
    where = f"on {count_of(threads, 'thread')}" if device.type == "cpu" else f"on {device.type}"
    if len(jobs) == 1:
        again = f", with OMP_NUM_THREADS={threads}" if device.type == "cpu" else ", on the same kind of device"
        return [f"trained alone {where}; the same bytes again: ifcar fit-head --config with this file{again}"]
    return [
        f"trained {where} in a fleet of {len(jobs)} runs: {', '.join(job.path.name for job in jobs)}",
        "trained alone (ifcar fit-head --config) it ends with other numbers; the same bytes again: remove the folders "
        f"of these {len(jobs)} runs, then give the command of the grid with --processes 1 --fleet {len(jobs)}",
    ]


def _predict(
    entries: Sequence[PreparedRun],
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


def _task_results(entry: PreparedRun, outcome: Outcome, tested: Examples, data: Data) -> dict[str, TaskResult]:
    """Return what a run says of the test clips in every task that has a name; of a plain head's only task nothing.

    A stream is scored beside the others here, which changes nothing of what it says.
    """
    tasks = [task for task in entry.head.tasks if task.name]
    stack, started = stack_states([entry], [outcome.weights], data.batches.device), time.perf_counter()
    spaces = {space.name: space for space in data.protocol.spaces}
    results = {}
    for task in tasks:
        (found,) = predict(stack, data.batches, tested, task=task)
        metrics = measure(found, seed=entry.config.seed, started=started)
        space = spaces.get(task.space, data.protocol.labels)
        results[task.name] = TaskResult(space=space, predictions=found, metrics=metrics)
    return results


def _enter(job: Job, reader: CacheReader, protocol: ProtocolTable, num_clips: int) -> PreparedRun:
    config = resolve(job.config, reader, protocol)
    head = build_head(config, reader.spec_of(protocol.name), len(protocol.labels.classes))
    note = ""
    if config.fine_tune is not None:
        config, note = start_from_base(config, config.fine_tune, head)
    if config.distil_from is not None:
        config = replace(config, distil_from=identified(config.distil_from))
    appearance = reader.spec.reads_features(head_arrays(config))
    plan = make_plan(config.schedule, num_clips, reads_appearance=appearance)
    return PreparedRun(config=config, path=job.path, head=head, plan=plan, note=note)
