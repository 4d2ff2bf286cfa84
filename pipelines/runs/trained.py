"""A finished run, ready to score clips: its head with its weights, its cache, and its test clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.cache.single import JOIN_SUFFIX
from ifcar.cache.streams import stream_of
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.contract import Head, Task
from ifcar.pipelines.feed.boxes import no_boxes
from ifcar.pipelines.feed.examples import Examples, limit_views, read_examples
from ifcar.pipelines.runs.config import EnsembleConfig, RunConfig
from ifcar.pipelines.runs.finished import Run, open_run
from ifcar.pipelines.runs.heads import trained_head
from ifcar.pipelines.runs.own_weights import BACKBONE
from ifcar.pipelines.runs.places import open_its_cache
from ifcar.pipelines.runs.resolve import head_arrays
from ifcar.pipelines.scoring.scores import Predictions
from ifcar.shell_words import command

SAME_TO = 1e-4  # absolute and relative: what batches of other sizes and other kernels may move a logit by


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run beside the cache that it was trained from.

    Args:
        run: the run.
        config: its config.
        reader: its cache, open.
        protocol: its protocol, with the label space that is scored alone.
        head: with the run's weights, on the CPU.
        arrays: what the head reads.
        task: of a head of several the one that is scored; else None.
        tested: the test clips of the protocol.
    """

    run: Run
    config: RunConfig
    reader: CacheReader
    protocol: ProtocolTable
    head: Head
    arrays: tuple[str, ...]
    task: Task | None
    tested: Examples


def open_trained(
    path: Path,
    *,
    cache: Path | None = None,
    labels: str | None = None,
    stream: str | None = None,
    views: int | None = None,
) -> TrainedRun:
    """Open a finished run to score the test part of its protocol.

    Args:
        path: the run's folder.
        cache: where its cache is, when that was moved.
        labels: another label space of its protocol with the same classes; default: the one that it learned.
        stream: of a run from several caches the one that answers, whose cache alone is opened; default: the first.
        views: how many plain views of a clip to test, see `ifcar.pipelines.feed.examples.spread_views`; default: those
            that the run was tested on.

    Raises:
        MissingDataError, InputError: not a finished run, or damaged; an ensemble; a head that reads instances of clips
            without any.
        CacheMismatchError: the cache is not the one that the run was trained from.
    """
    run = open_run(path)
    config = own_config(run)
    reader = _its_cache(path, config, cache, stream)
    head = trained_head(config, run.path, reader.spec_of(config.protocol), len(run.data().classes))
    task = _task(head, stream, labels)
    protocol = _protocol(reader, config, task, labels)
    read = head_arrays(config, reader.spec)
    arrays = tuple(name for name in read if stream in (None, stream_of(name)[0]))
    if reader.spec.reads_instances(arrays) and not reader.table("categories").any():
        raise no_boxes(reader.path, config.head, f"{reader.num_clips} clips")
    tested = read_examples(reader, protocol, Split.TEST)
    return TrainedRun(
        run=run,
        config=config,
        reader=reader,
        protocol=protocol,
        head=head,
        arrays=arrays,
        task=task,
        tested=limit_views(tested, reader, _views(config, reader, stream) if views is None else views),
    )


def _views(config: RunConfig, reader: CacheReader, stream: str | None) -> int | None:
    """Return how many views of a clip the run was scored by, or as many as one stream of a join has."""
    few = config.views is not None and stream is not None
    return min(config.views, reader.num_views) if few and config.views else config.views


def own_config(run: Run) -> RunConfig:
    """Return the config of a run that has weights. Raises InputError for an ensemble."""
    if isinstance(run.config, EnsembleConfig):
        raise InputError(
            f"{run.path}: an ensemble has no weights of its own; name its members instead, or see its metrics.json"
        )
    return run.config


def gives_stored(run: Run, predictions: Predictions) -> bool:
    """Return whether the logits of a part equal those stored with the run, to `SAME_TO`."""
    stored = run.predictions(predictions.split).logits
    return stored.shape == predictions.logits.shape and same_logits(stored, predictions.logits)


def same_logits(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Return whether two scorings of the same clips differ by no more than rounding, `SAME_TO`."""
    return np.allclose(one, other, atol=SAME_TO, rtol=SAME_TO)


def _task(head: Head, stream: str | None, labels: str | None) -> Task | None:
    """Return which of a head's several tasks is scored; None for a head of one."""
    first = head.tasks[0]
    if len(head.tasks) == 1:
        if stream not in (None, first.stream):
            learned = f"it learned {first.stream}" if first.stream else "it learned from one cache: leave --stream out"
            raise InputError(f"the run has no stream {stream!r}; {learned}")
        return None
    wanted = (stream or first.stream, labels or first.space)
    known = {(task.stream, task.space): task for task in head.tasks}
    if wanted not in known:
        names = ", ".join(task.name for task in head.tasks)
        raise InputError(f"the run has no task {'/'.join(wanted)}; it learned {names}")
    return known[wanted]


def _protocol(reader: CacheReader, config: RunConfig, task: Task | None, labels: str | None) -> ProtocolTable:
    """Return the run's protocol with the label space to score: a task's, the run's, or another of the same classes."""
    table = reader.protocol(config.protocol)
    if task is not None:
        return table.only(task.space)
    learned, scored = table.only(config.labels), table.only(labels or config.labels)
    for what in ("classes", "kind", "over"):
        if getattr(learned.labels, what) != getattr(scored.labels, what):
            raise InputError(
                f"--labels {labels}: the run learned {learned.labels.name!r}, and {labels!r} has another {what}; "
                "expected a label space of the same classes"
            )
    return scored


def _its_cache(path: Path, config: RunConfig, cache: Path | None, stream: str | None) -> CacheReader:
    """Open the cache that a run was trained from."""
    if config.live is not None and cache is None and not config.cache.exists():
        raise InputError(
            f"{path}: fine-tuned, and there is no cache of its backbone at {config.cache}; make it with "
            f"{command('ifcar', 'extract', '--weights', path / BACKBONE)} and the run's options, or name "
            "it with --cache"
        )
    place = cache or config.cache
    if stream is not None and not place.name.endswith(JOIN_SUFFIX):
        raise InputError(f"--stream {stream} would be ignored: {place} is one cache, not a join; leave it out")
    reader = open_its_cache(place, path, None if stream is None else (stream,))
    if reader.fingerprint != config.fingerprint:
        raise CacheMismatchError(
            f"{reader.path}: fingerprint {reader.fingerprint[:12]}…, but {path} was trained from "
            f"{config.fingerprint[:12]}…; name its cache with --cache"
        )
    return reader
