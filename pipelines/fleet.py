"""Many runs at once: a pool of processes, one thread each; one failing run does not stop the others."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from ifcar.errors import IfcarError, InputError
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Progress, Silent
from ifcar.pipelines.run_config import RunConfig, run_id
from ifcar.pipelines.runs import is_finished, open_run, read_config

MAX_BREAKS = 2  # a run that is under way when its pool breaks this often is given up


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run to be made.

    Args:
        config: resolved: with fingerprint, protocol digest and, where it starts from another run, that run's id.
        path: its folder.
    """

    config: RunConfig
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A run that could not be made.

    Args:
        path: its folder.
        reason: one line.
    """

    path: Path
    reason: str


def fit_all(
    jobs: Sequence[Job], progress: Progress, *, processes: int | None = None, device: str | None = None
) -> list[Failure]:
    """Make every run that is not finished; go on with stopped ones.

    Runs that start from another run of the list wait for it. A run that raises, or whose process dies, is reported and
    leaves the others alone.

    Args:
        jobs: the runs; their folders differ.
        progress: told about every finished run.
        processes: runs at once; default: one a core.
        device: see `fit`.

    Raises:
        InputError: a folder holds a finished run of another config.
    """
    todo = [job for job in jobs if not _is_made(job)]
    failures: list[Failure] = []
    if not todo:
        return failures
    progress.start(f"training {len(todo)} runs", len(todo))
    for wave in _waves(todo):
        failed = {failure.path for failure in failures}
        ready = []
        for job in wave:
            base = None if job.config.fine_tune is None else job.config.fine_tune.base
            if base in failed:
                failures.append(Failure(path=job.path, reason=f"the run it starts from failed ({base})"))
                progress.advance(1)
            else:
                ready.append(job)
        failures += _fit_wave(ready, progress, processes or os.cpu_count() or 1, device)
    progress.finish()
    return failures


def _is_made(job: Job) -> bool:
    if not is_finished(job.path):
        return False
    made = open_run(job.path).config
    if not isinstance(made, RunConfig) or run_id(made) != run_id(job.config):
        raise InputError(f"{job.path}: holds a finished run of another config; remove it, or work in another folder")
    return True


def _waves(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs that start from nothing, then those that start from another run."""
    fresh = [job for job in jobs if job.config.fine_tune is None]
    tuned = [job for job in jobs if job.config.fine_tune is not None]
    return [wave for wave in (fresh, tuned) if wave]


def _fit_wave(jobs: Sequence[Job], progress: Progress, processes: int, device: str | None) -> list[Failure]:
    """Make runs at once; after a worker's death go on in a new pool."""
    failures: list[Failure] = []
    breaks = dict.fromkeys((job.path for job in jobs), 0)
    left = list(jobs)
    while left:
        left, broken = _fit_in_pool(left, progress, processes, device, failures)
        for job in broken:
            breaks[job.path] += 1
            if breaks[job.path] < MAX_BREAKS:
                left.append(job)
            else:
                failures.append(Failure(path=job.path, reason="its process died (out of memory?)"))
                progress.advance(1)
        processes = 1 if broken else processes
    return failures


def _fit_in_pool(
    jobs: Sequence[Job], progress: Progress, processes: int, device: str | None, failures: list[Failure]
) -> tuple[list[Job], list[Job]]:
    """Make runs in one pool.

    Returns:
        (jobs not begun when the pool broke, jobs that may have broken it); both empty when it did not.
    """
    context = multiprocessing.get_context("spawn")
    done: set[Path] = set()
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context, initializer=_one_thread) as pool:
        futures: dict[Future[_Outcome], Job] = {pool.submit(_fit_one, job, device): job for job in jobs}
        try:
            for future in as_completed(futures):
                job = futures[future]
                outcome = future.result()
                done.add(job.path)
                if not outcome.ok:
                    failures.append(Failure(path=job.path, reason=outcome.text))
                progress.advance(1, note=outcome.text)
        except BrokenProcessPool:
            unfinished = [job for job in jobs if job.path not in done and not is_finished(job.path)]
            progress.advance(len(jobs) - len(done) - len(unfinished))
            begun = [job for job in unfinished if (job.path / "config.yaml").is_file()] or unfinished[:1]
            return [job for job in unfinished if job not in begun], begun
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [], []


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    ok: bool
    text: str


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _fit_one(job: Job, device: str | None) -> _Outcome:
    """Make one run in a worker process; whatever goes wrong becomes the run's failure."""
    try:
        stopped = (job.path / "config.yaml").is_file() and read_config(job.path / "config.yaml") is not None
        result = fit(job.config, Silent(), out=job.path, resume=stopped, device=device)
    except Exception as error:
        kind = "" if isinstance(error, IfcarError) else f"{type(error).__name__}: "
        return _Outcome(ok=False, text=" ".join(f"{job.path.name}: {kind}{error}".split()))
    test = result.run.metric("test")
    assert test is not None
    return _Outcome(ok=True, text=f"{job.path.name}: {100 * test.top1:.1f}")
