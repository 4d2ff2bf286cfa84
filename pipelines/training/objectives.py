"""What the label kind decides: the class loss, and what logits say of probabilities.

Single-label protocols have targets (n,), one class a clip: softmax and cross entropy. Multi-label protocols have
targets (n, K), 1 where the clip shows the class: a sigmoid and binary cross entropy for each class, averaged over the
classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FloatArray = NDArray[np.float64]


def class_loss(logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
    """Return the loss of every clip of every head.

    Args:
        logits: (M, B, K).
        targets: (M, B) classes, or (M, B, K) labels.
        label_smoothing: ε; moves targets to 1 − ε + ε/K and ε/K, or labels to 1 − ε/2 and ε/2.

    Returns:
        (M, B).
    """
    if targets.ndim < logits.ndim:
        return F.cross_entropy(logits.transpose(1, 2), targets, label_smoothing=label_smoothing, reduction="none")
    labels = targets.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


def mean_loss(logits: NDArray[np.float32], targets: NDArray[Any]) -> float:
    """Return the mean class loss of n clips in float64: logits (n, K), targets (n,) or (n, K)."""
    scores = logits.astype(np.float64)
    if targets.ndim == 2:
        return float((np.logaddexp(0.0, scores) - targets * scores).mean())
    own = scores[np.arange(len(targets)), targets]
    highest = scores.max(axis=1)
    log_total = highest + np.log(np.exp(scores - highest[:, None]).sum(axis=1))
    return float((log_total - own).mean())


def softmax(logits: NDArray[np.float32]) -> FloatArray:
    """Return class probabilities along the last axis."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    total: FloatArray = shifted / shifted.sum(axis=-1, keepdims=True)
    return total


def probabilities(logits: NDArray[np.float32], *, multi: bool) -> FloatArray:
    """Return the probability of every class: softmax over the last axis, or a sigmoid of each logit."""
    if not multi:
        return softmax(logits)
    each: FloatArray = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return each


def log_probabilities(logits: NDArray[np.float32]) -> FloatArray:
    """Return the logarithm of `softmax`, finite where a probability is too small for a float."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    logs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


def logits_of(probability: FloatArray, *, multi: bool) -> NDArray[np.float32]:
    """Return logits with these probabilities: log p, or log p − log(1 − p) for several labels."""
    tiny = float(np.finfo(np.float32).tiny)
    logits = np.log(np.maximum(probability, tiny))
    if multi:
        logits = logits - np.log(np.maximum(1.0 - probability, tiny))
    out: NDArray[np.float32] = logits.astype(np.float32)
    return out
