"""Predictions and metrics of a head on one part of a protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.heads.contract import InstanceBatch, Task
from ifcar.pipelines.feed.batches import BatchReader
from ifcar.pipelines.feed.examples import Examples
from ifcar.pipelines.labels.contract import MEASURES, LabelKind
from ifcar.pipelines.scoring.pooling import Pool, pool_views
from ifcar.pipelines.stacks.stack import Stack

TEST_BATCH, MIN_TEST_BATCH = 256, 32  # rows at once: of one head, and the fewest of a stack of many


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Logits of n clips, or instances.

    Args:
        split: the part's name.
        clip_ids: (n,) their ids, text.
        logits: (n, K) float32, averaged over a clip's views that are not augmented.
        targets: (n,) int64 classes, or (n, K) labels, see `ifcar.pipelines.labels.kinds`.
        kind: of the labels.
        segments: (n,) numbers; what belongs to one segment is resampled together. None: each is its own.
        groups: (n,) numbers of the protocol's groups, −1 for none, where clips of one are not independent, see
            `ProtocolTable`; None where they are.
    """

    split: str
    clip_ids: NDArray[np.str_]
    logits: NDArray[np.float32]
    targets: NDArray[Any]
    kind: LabelKind
    segments: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """One line of metrics.json: top-1 and top-5 of single labels, or mAP of several.

    A multi-label part none of whose clips has a label has no mAP, only a loss.

    Args:
        split: the part's name.
        n: clips.
        top1: share of clips whose class scores highest.
        top5: share of clips whose class is among the five highest (of all classes when there are fewer).
        map: mean average precision, see `ifcar.pipelines.labels.mean_ap`.
        weighted_map: the same with each class weighted by its clips.
        loss: mean class loss.
        seconds: wall time of the predictions.
        seed: of the run.
    """

    split: str
    n: int
    top1: float | None = None
    top5: float | None = None
    map: float | None = None
    weighted_map: float | None = None
    loss: float
    seconds: float
    seed: int

    def measures(self) -> dict[str, float]:
        """Return the measures that there are by their keys, the one that decides first."""
        return {key: value for key in MEASURES if (value := getattr(self, key)) is not None}

    @property
    def primary(self) -> float | None:
        """The measure that decides: top-1, or mAP; None where there is none."""
        return next(iter(self.measures().values()), None)

    @property
    def rank(self) -> tuple[float, float]:
        """What chooses between two trainings: the measure that decides, then the lower loss; the loss alone without."""
        return (0.0 if self.primary is None else self.primary, -self.loss)

    def held_out_record(self) -> dict[str, float]:
        """Return what history.jsonl says of a held-out part: the measure that decides, and the loss."""
        decides = dict(list(self.measures().items())[:1])
        return {f"held_out_{key}": value for key, value in (decides | {"loss": self.loss}).items()}

    def record(self) -> dict[str, Any]:
        """Return what metrics.json holds."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@torch.inference_mode()
def predict(
    stack: Stack,
    batches: BatchReader,
    examples: Examples,
    pool: Pool = "mean",
    task: Task | None = None,
    change: Callable[[InstanceBatch, slice], InstanceBatch] | None = None,
) -> list[Predictions]:
    """Score every clip of a part with every head in evaluation mode, pooling its plain views (see `pool_views`).

    Args:
        stack: the heads.
        batches: gives the rows.
        examples: the part.
        pool: of the views.
        task: of the heads; None: that of their `logits`.
        change: makes what the heads are shown of a batch, told which of the part's plain rows it holds; None shows it
            as it is.

    Returns:
        One for each head.
    """
    stack.set_training(False)
    rows, places = examples.plain_rows()
    size = max(MIN_TEST_BATCH, TEST_BATCH // len(stack))
    parts = [slice(start, start + size) for start in range(0, len(rows), size)]
    batches.expect(rows[part] for part in parts)
    shown: Iterable[InstanceBatch] = (batches.batch(rows[part], examples.order_of(places[part])) for part in parts)
    if change is not None:
        shown = map(change, shown, parts)
    scores = (stack.score(batch, per_head=False) for batch in shown)
    chosen = (out.logits if task is None or not out.tasks else out.tasks[task.name] for out in scores)
    logits = np.concatenate([own.float().cpu().numpy() for own in chosen], axis=1)
    space = "" if task is None else task.space
    return [clip_predictions(logits[place], examples, pool, space) for place in range(len(stack))]


def clip_predictions(
    logits: NDArray[np.float32], examples: Examples, pool: Pool = "mean", space: str = ""
) -> Predictions:
    """Return the predictions of a part from its plain rows' logits (rows, K), in the order of `plain_rows`.

    Args:
        logits: of the classes of the label space.
        examples: the part.
        pool: of the views.
        space: name of the label space; "" for the run's own.
    """
    _, place_of_row = examples.plain_rows()
    labels = examples.labels_in(space)
    return Predictions(
        split=examples.name,
        clip_ids=examples.names,
        logits=pool_views(logits, place_of_row, len(examples), pool, labels.kind),
        targets=labels.targets,
        kind=labels.kind,
        segments=examples.segments if len(np.unique(examples.segments)) < len(examples) else None,
        groups=examples.groups,
    )


def group_predictions(predictions: Predictions) -> Predictions | None:
    """Return the mean logits of each group's clips, as of a recording's windows.

    None where labels are several, clips have no groups or each its own, or a group's clips are of several classes.
    """
    groups, targets = predictions.groups, predictions.targets
    if groups is None or (groups < 0).any() or not predictions.kind.exclusive:
        return None
    names, first, place = np.unique(groups, return_index=True, return_inverse=True)
    if len(names) == len(groups) or (targets != targets[first][place]).any():
        return None
    sums = np.zeros((len(names), predictions.logits.shape[1]), np.float64)
    np.add.at(sums, place, predictions.logits)
    mean = (sums / np.bincount(place)[:, None]).astype(np.float32)
    return replace(
        predictions, clip_ids=names.astype(np.str_), logits=mean, targets=targets[first], segments=None, groups=None
    )


def pooled_units(parts: Sequence[Predictions]) -> tuple[NDArray[np.int64], bool]:
    """Return what is resampled together of several protocols' parts put together, and whether that is groups.

    Groups are drawn whole where every part has them and there are at least two: one group says nothing of others, so
    that its segments are drawn, and the result is of this group. Each part's segments are its own, numbered anew; a
    group's number is the same in every part. A clip without a group is drawn with its segment.

    Returns:
        (n,) numbers, and True where they are of groups.
    """
    numbers = [np.arange(len(p.clip_ids)) if p.segments is None else p.segments for p in parts]
    starts = np.cumsum([0, *(1 + own.max(initial=-1) for own in numbers)])
    segments = np.concatenate([own + start for own, start in zip(numbers, starts[:-1], strict=True)])
    known = [p.groups for p in parts if p.groups is not None]
    groups = np.concatenate(known) if len(known) == len(parts) else np.full(len(segments), -1)
    if len(np.unique(np.where(groups < 0, -1 - segments, groups))) < 2 or (groups < 0).all():
        return segments, False
    return np.where(groups < 0, groups.max() + 1 + segments, groups), True


def measure(predictions: Predictions, *, seed: int, started: float) -> Metrics:
    """Return the metrics of predictions: the measures of their kind of labels, and the mean class loss.

    A multi-label part without any label has the loss only.
    """
    logits, targets, kind = predictions.logits, predictions.targets, predictions.kind
    return Metrics(
        split=predictions.split,
        n=len(targets),
        loss=kind.mean_loss(logits, targets),
        seconds=time.perf_counter() - started,
        seed=seed,
        **kind.measures(logits, targets),
    )


def round_note(record: Mapping[str, Any]) -> str:
    """Return what progress says of a line of history.jsonl."""
    parts = [f"loss {record['classification_loss']:.3f}"]
    for key, title in MEASURES.items():
        if f"held_out_{key}" in record:
            parts.append(f"held-out {title} {100 * record[f'held_out_{key}']:.1f}")
    if len(parts) == 1 and "held_out_loss" in record:
        parts.append(f"held-out loss {record['held_out_loss']:.3f}")
    return ", ".join(parts)
