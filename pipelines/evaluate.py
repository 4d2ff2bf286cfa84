"""`ifcar evaluate`: a finished run, scored again from its weights and cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifcar.cache.joined import JoinedReader
from ifcar.cache.open import JOIN_SUFFIX
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Split
from ifcar.cache.streams import stream_of
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.contract import Head, Task
from ifcar.pipelines.feed.batches import open_batches
from ifcar.pipelines.feed.boxes import no_boxes
from ifcar.pipelines.feed.examples import limit_views, read_examples
from ifcar.pipelines.runs.config import EnsembleConfig, RunConfig
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.heads import build_head
from ifcar.pipelines.runs.places import open_its_cache
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.resolve import head_arrays
from ifcar.pipelines.runs.weights import load_head
from ifcar.pipelines.scoring.detections import detect
from ifcar.pipelines.scoring.scores import Metrics, measure, predict
from ifcar.pipelines.stacks.stack import stack_heads
from ifcar.shell_words import command


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What `ifcar evaluate` shows.

    Args:
        metrics: of the test part.
        classes: per class: name, clips, top-1 or average precision; worst first. With `frame_map`, frame AP as well.
        weighted_map: mAP with each class weighted by its clips; None where there is no mAP.
        frame_map: frame mAP where clips are boxes at key frames, see `ifcar.pipelines.scoring.frame_map`; else None.
        agrees: whether the logits equal those stored with the run, to 1e-4; None for another way of pooling views.
        note: one line where test clips are not scored by all plain views, see `Examples`; else empty.
    """

    metrics: Metrics
    classes: Sequence[dict[str, Any]]
    weighted_map: float | None
    frame_map: float | None
    agrees: bool | None
    note: str

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "metrics": self.metrics.record()}


def evaluate(path: Path, options: EvaluateConfig = EvaluateConfig()) -> Evaluation:
    """Load a run's weights, score the test part of its protocol again and compare with the stored logits.

    Args:
        path: the run's folder.
        options: which cache, label space and views, and what to write.

    Raises:
        MissingDataError, InputError: not a finished run, or damaged; detections where clips are no boxes at key frames.
        CacheMismatchError: the cache is not the one that the run was trained from.
    """
    views, detections = options.views, options.detections
    started = time.perf_counter()
    run = open_run(path)
    config = run.config
    if isinstance(config, EnsembleConfig):
        raise InputError(
            f"{path}: an ensemble has no weights of its own; evaluate its members, or see its metrics.json"
        )
    reader = _its_cache(path, config, options.cache, options.stream)
    head = build_head(config, reader.spec, len(run.data().classes))
    task = _task(head, options.stream, options.labels)
    protocol = _protocol(reader, config, task, options.labels)
    read = head_arrays(config, reader.spec)
    arrays = tuple(name for name in read if options.stream in (None, stream_of(name)[0]))
    if reader.spec.reads_instances(arrays) and not reader.table("categories").any():
        raise no_boxes(reader.path, config.head, f"{reader.num_clips} clips")
    load_head(head, path / "model.safetensors")
    tested = read_examples(reader, protocol, Split.TEST)
    tested = limit_views(tested, reader, config.views if views is None else views)
    batches = open_batches(reader, arrays, [tested], options.device, "auto")
    (predictions,) = predict(stack_heads([head], batches.device), batches, tested, options.pool, task)
    stored = run.predictions("test").logits
    same = stored.shape == predictions.logits.shape and np.allclose(stored, predictions.logits, atol=1e-4, rtol=1e-4)
    metrics = measure(predictions, seed=config.seed, started=started)
    detected = detect(predictions, protocol, reader.clip_ids)
    if detections is not None:
        if detected is None:
            raise InputError(
                f"--detections: the clips of {reader.path} are not boxes at key frames, as those of ava are"
            )
        detected.write(detections)
    reader.close()
    own = task is None or task == head.tasks[0]
    as_trained = own and options.pool == "mean" and views is None and options.labels in (None, config.labels)
    scored = predictions.logits, predictions.targets
    classes = predictions.kind.per_class(*scored, protocol.labels.classes)
    if detected is not None:
        classes = [{**row, "frame_ap": detected.precisions[row["class"]]} for row in classes]
    return Evaluation(
        metrics=metrics,
        classes=classes,
        weighted_map=predictions.kind.weighted_measure(*scored),
        frame_map=None if detected is None else detected.frame_map,
        agrees=bool(same) if as_trained else None,
        note=tested.note,
    )


def _task(head: Head, stream: str | None, labels: str | None) -> Task | None:
    """Return which of a head's several tasks is scored; None for a head of one."""
    if len(head.tasks) == 1:
        if stream not in (None, head.tasks[0].stream):
            raise InputError(f"--stream {stream} would be ignored: the run has one stream; leave it out")
        return None
    first = head.tasks[0]
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
            f"{command('ifcar', 'extract', '--weights', path / 'backbone.safetensors')} and the run's options, or name "
            "it with --cache"
        )
    place = cache or config.cache
    if stream is not None and not place.name.endswith(JOIN_SUFFIX):
        raise InputError(f"--stream {stream} would be ignored: {place} is one cache, not a join; leave it out")
    reader = open_its_cache(place, path) if stream is None else JoinedReader(place, (stream,))
    if reader.fingerprint != config.fingerprint:
        raise CacheMismatchError(
            f"{reader.path}: fingerprint {reader.fingerprint[:12]}…, but {path} was trained from "
            f"{config.fingerprint[:12]}…; name its cache with --cache"
        )
    return reader
