"""`ifcar evaluate`: a finished run, scored again from its weights and cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ifcar.errors import InputError
from ifcar.pipelines.feed.batches import open_batches
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.trained import gives_stored, open_trained
from ifcar.pipelines.scoring.detections import detect
from ifcar.pipelines.scoring.scores import Metrics, Predictions, group_predictions, measure, predict
from ifcar.pipelines.stacks.stack import stack_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What `ifcar evaluate` shows.

    Args:
        metrics: of the test part.
        classes: per class: name, clips, top-1 or average precision; worst first. With `frame_map`, frame AP as well.
        by_group: of one class a clip: "group", what the protocol's groups are, "n" of them, and measures of the mean
            logits of each; None where a group's clips are of several classes, or each clip is its own.
        frame_map: frame mAP where clips are boxes at key frames, see `ifcar.pipelines.scoring.frame_map`; else None.
        agrees: whether the logits equal those stored with the run, to 1e-4; None for another way of pooling views.
        note: one line where test clips are not scored by all plain views, see `Examples`; else empty.
    """

    metrics: Metrics
    classes: Sequence[dict[str, Any]]
    by_group: dict[str, Any] | None
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
    trained = open_trained(path, cache=options.cache, labels=options.labels, stream=options.stream, views=options.views)
    config, reader, tested = trained.config, trained.reader, trained.tested
    batches = open_batches(reader, trained.arrays, [tested], options.device, "auto")
    stack = stack_heads([trained.head], batches.device)
    pool = options.pool or config.pool
    (predictions,) = predict(stack, batches, tested, pool, task=trained.task)
    metrics = measure(predictions, seed=config.seed, started=started)
    detected = detect(predictions, trained.protocol, reader.clip_ids)
    if detections is not None:
        if detected is None:
            raise InputError(
                f"--detections: the clips of {reader.path} are not boxes at key frames, as those of ava are"
            )
        detected.write(detections)
    reader.close()
    own = trained.task in (None, trained.head.tasks[0])
    as_trained = own and pool == config.pool and views is None and options.labels in (None, config.labels)
    scored = predictions.logits, predictions.targets
    classes = predictions.kind.per_class(*scored, trained.protocol.labels.classes)
    if detected is not None:
        classes = [{**row, "frame_ap": detected.precisions[row["class"]]} for row in classes]
    return Evaluation(
        metrics=metrics,
        classes=classes,
        by_group=_by_group(predictions, trained.protocol.group_kind),
        frame_map=None if detected is None else detected.frame_map,
        agrees=gives_stored(trained.run, predictions) if as_trained else None,
        note=tested.note,
    )


def _by_group(predictions: Predictions, kind: str) -> dict[str, Any] | None:
    pooled = group_predictions(predictions)
    if pooled is None:
        return None
    measures = pooled.kind.measures(pooled.logits, pooled.targets)
    return {"group": kind or "group", "n": len(pooled.targets), **measures}
