"""`ifcar evaluate`: a finished run, scored again from its weights and cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ifcar.errors import InputError
from ifcar.pipelines.feed.batches import open_batches
from ifcar.pipelines.feed.examples import check_views, spread_views
from ifcar.pipelines.runs.trained import gives_stored, open_trained
from ifcar.pipelines.scoring.detections import detect
from ifcar.pipelines.scoring.scores import Metrics, Pool, measure, predict
from ifcar.pipelines.stacks.stack import stack_heads


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


def evaluate(
    path: Path,
    *,
    cache: Path | None = None,
    labels: str | None = None,
    device: str | None = None,
    pool: Pool = "mean",
    views: int | None = None,
    detections: Path | None = None,
) -> Evaluation:
    """Load a run's weights, score the test part of its protocol again and compare with the stored logits.

    Args:
        path: the run's folder.
        cache: where its cache is, when that was moved.
        labels: another label space of its protocol with the same classes; default: the one that it learned.
        device: default: cuda where there is one.
        pool: how the views of a clip become one score, see `ifcar.pipelines.scoring.scores.pool_views`.
        views: how many plain views of a clip to test, see `ifcar.pipelines.feed.examples.spread_views`; None takes all.
        detections: file to write the scored boxes to, see `ifcar.pipelines.scoring.detections`.

    Raises:
        MissingDataError, InputError: not a finished run, or damaged; detections where clips are no boxes at key frames.
        CacheMismatchError: the cache is not the one that the run was trained from.
    """
    started = time.perf_counter()
    trained = open_trained(path, cache=cache, labels=labels)
    config, reader, tested = trained.config, trained.reader, trained.tested
    if views is not None:
        check_views(tested, reader, views)
        tested = spread_views(tested, reader, views)
    batches = open_batches(reader, trained.arrays, [tested], device, "auto")
    (predictions,) = predict(stack_heads([trained.head], batches.device), batches, tested, pool)
    metrics = measure(predictions, seed=config.seed, started=started)
    detected = detect(predictions, trained.protocol, reader.clip_ids)
    if detections is not None:
        if detected is None:
            raise InputError(
                f"--detections: the clips of {reader.path} are not boxes at key frames, as those of ava are"
            )
        detected.write(detections)
    reader.close()
    scored = predictions.logits, predictions.targets
    classes = predictions.kind.per_class(*scored, trained.protocol.labels.classes)
    if detected is not None:
        classes = [{**row, "frame_ap": detected.precisions[row["class"]]} for row in classes]
    return Evaluation(
        metrics=metrics,
        classes=classes,
        weighted_map=predictions.kind.weighted_measure(*scored),
        frame_map=None if detected is None else detected.frame_map,
        agrees=gives_stored(trained.run, predictions)
        if pool == "mean" and views is None and labels in (None, config.labels)
        else None,
        note=tested.note,
    )
