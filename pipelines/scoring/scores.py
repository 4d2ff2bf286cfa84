"""Predictions and metrics of a head on one part of a protocol."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.pipelines.feed.batches import BatchReader, Examples
from ifcar.pipelines.scoring.mean_ap import class_precisions, mean_average_precision
from ifcar.pipelines.training.objectives import log_probabilities, logits_of, mean_loss, probabilities
from ifcar.pipelines.training.stack import Stack

TEST_BATCH, MIN_TEST_BATCH = 256, 32  # rows at once: of one head, and the fewest of a stack of many
Pool = Literal["mean", "max", "sum"]
POOLS: tuple[Pool, ...] = get_args(Pool)
MEASURES = {"top1": "top-1", "top5": "top-5", "map": "mAP"}  # keys of metrics.json and what tables call them


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Logits of n clips.

    Args:
        split: the part's name.
        clip_ids: (n,) text.
        logits: (n, K) float32, averaged over a clip's views that are not augmented.
        targets: (n,) int64 classes, or (n, K) uint8 labels of a multi-label protocol.
    """

    split: str
    clip_ids: NDArray[np.str_]
    logits: NDArray[np.float32]
    targets: NDArray[Any]

    @property
    def multi(self) -> bool:
        """Whether a clip may have several labels."""
        return self.targets.ndim == 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """One line of metrics.json: top-1 and top-5 of a single-label protocol, or mAP of a multi-label one.

    A multi-label part none of whose clips has a label has no mAP, only a loss.

    Args:
        split: the part's name.
        n: clips.
        top1: share of clips whose class scores highest.
        top5: share of clips whose class is among the five highest (of all classes when there are fewer).
        map: mean average precision, see `ifcar.pipelines.scoring.mean_ap`.
        loss: mean class loss.
        seconds: wall time of the predictions.
        seed: of the run.
    """

    split: str
    n: int
    top1: float | None = None
    top5: float | None = None
    map: float | None = None
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
    stack: Stack, batches: BatchReader, examples: Examples, ids: Sequence[str], pool: Pool = "mean"
) -> list[Predictions]:
    """Score every clip of a part with every head in evaluation mode, pooling its plain views (see `pool_views`)."""
    stack.set_training(False)
    rows = examples.rows[examples.plain]
    size = max(MIN_TEST_BATCH, TEST_BATCH // len(stack))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    batches.expect(parts)
    logits = np.concatenate(
        [stack.score(batches.batch(part), own=False).logits.float().cpu().numpy() for part in parts], axis=1
    )
    return [clip_predictions(logits[place], examples, ids, pool) for place in range(len(stack))]


def clip_predictions(
    logits: NDArray[np.float32], examples: Examples, ids: Sequence[str], pool: Pool = "mean"
) -> Predictions:
    """Return the predictions of a part from its plain rows' logits (rows, K), in the order of `examples.rows`."""
    clip_of_row = np.repeat(np.arange(len(examples)), examples.rows.shape[1])[examples.plain.ravel()]
    multi = examples.targets.ndim == 2
    return Predictions(
        split=examples.name,
        clip_ids=np.array([ids[c] for c in examples.clips]),
        logits=pool_views(logits, clip_of_row, len(examples), pool, multi=multi),
        targets=examples.targets,
    )


def pool_views(
    logits: NDArray[np.float32], clip_of_row: NDArray[np.int64], num_clips: int, pool: Pool, *, multi: bool
) -> NDArray[np.float32]:
    """Return one line of logits a clip from those of its views.

    Args:
        logits: (rows, K), of every view.
        clip_of_row: (rows,) ascending; every clip has at least one row.
        num_clips: n.
        pool: "mean" of the logits; "max", the highest probability of each class (Wang and Gupta 2018, §6); "sum" of the
            probabilities, given as the logits of their mean, which ranks the same.
        multi: whether probabilities are sigmoids, else a softmax.

    Returns:
        (n, K).
    """
    counts = np.bincount(clip_of_row, minlength=num_clips)[:, None]
    total = np.zeros((num_clips, logits.shape[1]), np.float64)
    if pool == "max":
        scores = logits.astype(np.float64) if multi else log_probabilities(logits)
        highest: NDArray[np.float64] = np.maximum.reduceat(scores, np.flatnonzero(np.diff(clip_of_row, prepend=-1)))
        return highest.astype(np.float32)
    np.add.at(total, clip_of_row, logits if pool == "mean" else probabilities(logits, multi=multi))
    if pool == "mean":
        return np.asarray(total / counts).astype(np.float32)
    return logits_of(total / counts, multi=multi)


def check_pool(pool: str) -> Pool:
    """Return the pooling of that name. Raises InputError when there is none."""
    for known in POOLS:
        if pool == known:
            return known
    raise InputError(f"--pool is {pool!r}; expected " + ", ".join(POOLS))


def target_ranks(predictions: Predictions) -> NDArray[np.int64]:
    """Return (n,) how many other classes score at least as high as a clip's own; below k means right at top-k.

    Ties count against the prediction. For single-label protocols.
    """
    logits, targets = predictions.logits, predictions.targets
    own = logits[np.arange(len(targets)), targets]
    ranks: NDArray[np.int64] = (logits >= own[:, None]).sum(axis=1) - 1
    return ranks


def measure(predictions: Predictions, *, seed: int, started: float) -> Metrics:
    """Return the metrics of predictions: top-1, top-5 (see `target_ranks`) or mAP, and the mean class loss.

    A multi-label part without any label has the loss only.
    """
    found: dict[str, float] = {}
    if predictions.multi:
        if predictions.targets.any():
            found["map"] = mean_average_precision(predictions.logits, predictions.targets)
    else:
        rank = target_ranks(predictions)
        found |= {"top1": float((rank < 1).mean()), "top5": float((rank < 5).mean())}
    return Metrics(
        split=predictions.split,
        n=len(predictions.targets),
        loss=mean_loss(predictions.logits, predictions.targets),
        seconds=time.perf_counter() - started,
        seed=seed,
        **found,
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


def per_class(predictions: Predictions, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return, for each class with test clips, its name, number of clips and top-1 or average precision, worst first."""
    if predictions.multi:
        key, values = "ap", class_precisions(predictions.logits, predictions.targets)
        counts = predictions.targets.astype(np.int64).sum(axis=0)
    else:
        right = predictions.logits.argmax(axis=1) == predictions.targets
        counts = np.bincount(predictions.targets, minlength=len(classes))
        hits = np.bincount(predictions.targets[right], minlength=len(classes))
        key, values = "top1", hits / np.maximum(counts, 1)
    rows = [{"class": name, "n": int(counts[k]), key: float(values[k])} for k, name in enumerate(classes) if counts[k]]
    return sorted(rows, key=lambda row: (row[key], row["class"]))
