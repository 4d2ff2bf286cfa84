"""Predictions and metrics of a head on one part of a protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ifcar.pipelines.batches import BatchReader, Examples
from ifcar.pipelines.stack import Stack

TEST_BATCH, MIN_TEST_BATCH = 256, 32  # rows at once: of one head, and the fewest of a stack of many


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Logits of n clips.

    Args:
        split: the part's name.
        clip_ids: (n,) text.
        logits: (n, K) float32, averaged over a clip's views that are not augmented.
        targets: (n,) int64.
    """

    split: str
    clip_ids: NDArray[np.str_]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """One line of metrics.json.

    Args:
        split: the part's name.
        n: clips.
        top1: share of clips whose class scores highest.
        top5: share of clips whose class is among the five highest (of all classes when there are fewer).
        loss: mean cross entropy.
        seconds: wall time of the predictions.
        seed: of the run.
    """

    split: str
    n: int
    top1: float
    top5: float
    loss: float
    seconds: float
    seed: int


@torch.inference_mode()
def predict(stack: Stack, batches: BatchReader, examples: Examples, ids: Sequence[str]) -> list[Predictions]:
    """Score every clip of a part with every head in evaluation mode, averaging the logits of its plain views."""
    stack.set_training(False)
    rows = examples.rows[examples.plain]
    size = max(MIN_TEST_BATCH, TEST_BATCH // len(stack))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    batches.expect(parts)
    logits = np.concatenate(
        [stack.score(batches.batch(part), own=False).logits.float().cpu().numpy() for part in parts], axis=1
    )
    return [average_views(logits[place], examples, ids) for place in range(len(stack))]


def average_views(logits: NDArray[np.float32], examples: Examples, ids: Sequence[str]) -> Predictions:
    """Return the predictions of a part from its plain rows' logits (rows, K), in the order of `examples.rows`."""
    clip_of_row = np.repeat(np.arange(len(examples)), examples.rows.shape[1])[examples.plain.ravel()]
    total = np.zeros((len(examples), logits.shape[1]), np.float64)
    np.add.at(total, clip_of_row, logits)
    mean = total / np.bincount(clip_of_row, minlength=len(examples))[:, None]
    return Predictions(
        split=examples.name,
        clip_ids=np.array([ids[c] for c in examples.clips]),
        logits=mean.astype(np.float32),
        targets=examples.targets,
    )


def target_ranks(predictions: Predictions) -> NDArray[np.int64]:
    """Return (n,) how many other classes score at least as high as a clip's own; below k means right at top-k.

    Ties count against the prediction.
    """
    logits, targets = predictions.logits, predictions.targets
    own = logits[np.arange(len(targets)), targets]
    ranks: NDArray[np.int64] = (logits >= own[:, None]).sum(axis=1) - 1
    return ranks


def measure(predictions: Predictions, *, seed: int, started: float) -> Metrics:
    """Return top-1, top-5 (see `target_ranks`) and cross entropy of predictions."""
    logits, targets = predictions.logits.astype(np.float64), predictions.targets
    own = logits[np.arange(len(targets)), targets]
    rank = target_ranks(predictions)
    highest = logits.max(axis=1)
    log_total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return Metrics(
        split=predictions.split,
        n=len(targets),
        top1=float((rank < 1).mean()),
        top5=float((rank < 5).mean()),
        loss=float((log_total - own).mean()),
        seconds=time.perf_counter() - started,
        seed=seed,
    )


def per_class(predictions: Predictions, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return, for each class with test clips, its name, number of clips and top-1, worst first."""
    right = predictions.logits.argmax(axis=1) == predictions.targets
    rows = []
    for k, name in enumerate(classes):
        mine = predictions.targets == k
        if mine.any():
            rows.append({"class": name, "n": int(mine.sum()), "top1": float(right[mine].mean())})
    return sorted(rows, key=lambda row: (row["top1"], row["class"]))
