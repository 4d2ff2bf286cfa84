"""Many fleets of runs at once: a pool of processes, one thread each; what fails does not stop the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ifcar.counts import count_of
from ifcar.errors import IfcarError, InputError, one_line
from ifcar.heap import keep_freed_memory
from ifcar.pipelines.engines.cluster import RayConfig
from ifcar.pipelines.feed.memory import Memory
from ifcar.pipelines.fleets.fleet import Fleet, end_fleet, make_fleet, plan_fleets
from ifcar.pipelines.fleets.ray_workers import ray_workers
from ifcar.pipelines.fleets.workers import Workers, local_workers
from ifcar.pipelines.progress import Progress, Silent
from ifcar.pipelines.runs.config import RunConfig, run_id
from ifcar.pipelines.runs.finished import is_finished, open_run
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.jobs import FailedRun, Job
from ifcar.pipelines.training.machine import MachineConfig
from ifcar.pipelines.training.together import fit_together

MAX_BREAKS = 2  # a fleet that is under way when its pool breaks this often is taken apart, a single run given up


def fit_all(
    jobs: Sequence[Job],
    progress: Progress,
    machine: MachineConfig = MachineConfig(),
    *,
    cluster: RayConfig | None = None,
) -> list[FailedRun]:
    """Make every run that is not finished; go on with stopped ones.

    Runs that differ in numbers only train together, see `ifcar.pipelines.fleets.fleet`. Runs that start or learn from
    another run of the list wait for it. A run whose numbers stop being finite is reported and leaves the others
    alone; the runs of a fleet that raises, or whose process keeps dying, are made one by one, and reported if they do
    so again.

    Args:
        jobs: the runs; their folders differ.
        progress: told about every finished run.
        machine: how many train at once, and where.
        cluster: train on the nodes of this one; its choice changes nothing in a run.

    Raises:
        InputError: a folder holds a finished run of another config, or the cluster cannot do the work.
    """
    num_left = len([job for job in jobs if not _is_made(job)])
    failures: list[FailedRun] = []
    if not num_left:
        return failures
    with _open_workers(jobs, progress, cluster, machine) as workers:
        progress.start(f"training {count_of(num_left, 'run')}", num_left)
        try:
            _fit_waves(jobs, progress, replace(workers, memory=machine.memory), machine.fleet_size, failures)
        except KeyboardInterrupt:
            made = sum(is_finished(job.path) for job in jobs)
            finished = count_of(made, "is", of=count_of(len(jobs), "run"))
            progress.say(f"{finished} finished; the same command goes on with the rest")
            raise
        progress.finish()
    return failures


@contextmanager
def _open_workers(
    jobs: Sequence[Job], progress: Progress, cluster: RayConfig | None, machine: MachineConfig
) -> Iterator[Workers]:
    processes, device = machine.processes, machine.device
    if cluster is None:
        yield local_workers(prepare_worker, processes=processes, device=device)
        return
    folder, caches = jobs[0].path.parent, sorted({job.config.cache for job in jobs})
    with ray_workers(
        cluster, prepare_worker, progress, folder=folder, paths=caches, processes=processes, device=device
    ) as workers:
        yield workers


def _fit_waves(
    jobs: Sequence[Job], progress: Progress, workers: Workers, fleet_size: int | None, failures: list[FailedRun]
) -> None:
    for wave in _waves(jobs):
        failed = {failure.path for failure in failures}
        ready = []
        for job in wave:
            missing = [source for source in job.config.sources if source in failed]
            if missing:
                failures.append(FailedRun(path=job.path, reason=f"the run it is made from failed ({missing[0]})"))
                progress.advance(1)
            else:
                ready.append(job)
        fleets, lines = plan_fleets(
            ready, processes=workers.processes, device=workers.device, free=workers.free, fleet_size=fleet_size
        )
        for line in lines:
            progress.say(line)
        failures += _fit_wave(fleets, progress, workers)


def _is_made(job: Job) -> bool:
    if not is_finished(job.path):
        return False
    made = open_run(job.path).config
    if not isinstance(made, RunConfig) or run_id(made) != run_id(job.config):
        raise InputError(f"{job.path}: holds a finished run of another config; remove it, or work in another folder")
    return True


def _waves(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs that are made from no other of them, then those that are made from these, and so on."""
    left, waves = {job.path: job for job in jobs}, list[list[Job]]()
    while left:
        waves.append([job for job in left.values() if left.keys().isdisjoint(job.config.sources)])
        left = {path: job for path, job in left.items() if job not in waves[-1]}
    return waves


def _fit_wave(fleets: Sequence[Fleet], progress: Progress, workers: Workers) -> list[FailedRun]:
    """Make fleets at once; after a death that others may have caused go on in a new pool, one at a time."""
    failures: list[FailedRun] = []
    breaks: dict[Path, int] = {}
    left, processes = list(fleets), workers.processes
    while left:
        left, broken, raised = _fit_in_pool(left, progress, workers, processes, failures)
        for fleet in broken:
            breaks[fleet.folder] = breaks.get(fleet.folder, 0) + 1
            if breaks[fleet.folder] < MAX_BREAKS:
                left.append(fleet)
            elif len(fleet.jobs) > 1:
                raised.append(fleet)
            else:
                failures.append(FailedRun(path=fleet.jobs[0].path, reason="its process died (out of memory?)"))
                progress.advance(1)
        for fleet in raised:
            end_fleet(fleet)
            alone = [make_fleet([job]) for job in fleet.jobs if not is_finished(job.path)]
            breaks |= {single.folder: MAX_BREAKS - 1 for single in alone}
            left += alone
        processes = 1 if broken and not workers.isolates else processes
    return failures


def _fit_in_pool(
    fleets: Sequence[Fleet], progress: Progress, workers: Workers, processes: int, failures: list[FailedRun]
) -> tuple[list[Fleet], list[Fleet], list[Fleet]]:
    """Make fleets in one pool.

    Returns:
        (fleets not begun when a process died, fleets that may have killed it, fleets of several runs that raised).
    """
    left = {path for path in _paths(fleets) if not is_finished(path)}
    lost: list[Fleet] = []
    raised: list[Fleet] = []
    with workers.executor(min(processes, len(fleets))) as pool:
        futures: dict[Future[_Outcome], Fleet] = {
            pool.submit(_fit_fleet, fleet, workers.device, workers.memory): fleet for fleet in fleets
        }
        for future in as_completed(futures):
            fleet = futures[future]
            try:
                outcome = future.result()
            except BrokenExecutor:
                lost.append(fleet)
                continue
            if outcome.raised and len(fleet.jobs) > 1:
                raised.append(fleet)
                progress.say(f"{outcome.text}; training its {len(fleet.jobs)} runs one by one")
                continue
            failures += outcome.failures
            progress.advance(outcome.num_made + len(outcome.failures), note=outcome.text)
    progress.advance(sum(path in left and is_finished(path) for path in _paths(lost)))
    unfinished = [rest for fleet in fleets if fleet in lost for rest in _rest(fleet)]
    begun = [f for f in unfinished if any((job.path / "config.yaml").is_file() for job in f.jobs)] or unfinished[:1]
    return [fleet for fleet in unfinished if fleet not in begun], begun, raised


def _paths(fleets: Sequence[Fleet]) -> list[Path]:
    return [job.path for fleet in fleets for job in fleet.jobs]


def _rest(fleet: Fleet) -> list[Fleet]:
    """Return what is left of a fleet whose process is gone: itself, or what its end did not report."""
    left = [job for job in fleet.jobs if not is_finished(job.path)]
    whole = len(left) == len(fleet.jobs) or (fleet.folder / CHECKPOINT).is_file()
    return [fleet] if left and whole else [make_fleet([job]) for job in left]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    num_made: int
    failures: tuple[FailedRun, ...]
    text: str
    raised: bool = False


def prepare_worker() -> None:
    """Set a process up for training beside others."""
    torch.set_num_threads(1)
    keep_freed_memory()


def _fit_fleet(fleet: Fleet, device: str, memory: Memory) -> _Outcome:
    """Make the runs of a fleet in a worker process; whatever goes wrong becomes the runs' failure."""
    before = [is_finished(job.path) for job in fleet.jobs]
    name = fleet.jobs[0].path.name
    try:
        results = fit_together(fleet.jobs, fleet.folder, Silent(), device=device, memory=memory)
    except Exception as error:
        kind = "" if isinstance(error, IfcarError) else f"{type(error).__name__}: "
        text = one_line(f"{name}: {kind}{error}")
        return _Outcome(num_made=0, failures=(FailedRun(path=fleet.jobs[0].path, reason=text),), text=text, raised=True)
    end_fleet(fleet)
    failures, made, text = [], 0, ""
    for job, old, result in zip(fleet.jobs, before, results, strict=True):
        if isinstance(result, FailedRun):
            failures.append(FailedRun(path=job.path, reason=f"{job.path.name}: {result.reason}"))
            continue
        test = result.run.metric("test")
        assert test is not None
        measured = f"loss {test.loss:.3f}" if test.primary is None else f"{100 * test.primary:.1f}"
        text = text or f"{job.path.name}: {measured}"
        made += not old
    return _Outcome(num_made=made, failures=tuple(failures), text=text or failures[0].reason)
