"""Single and multi label: what each decides about loss, probabilities and measures.

single   targets (n,) int64, one class a clip: softmax and cross entropy; top-1 and top-5
multi    targets (n, K) int8, 1 where the clip shows the class, 0 where not, −1 where that is not known: a sigmoid and
         binary cross entropy for each class, averaged over the known ones; mean average precision, and that weighted
         by the clips of each class

What is not known counts nowhere: not in the loss, nor in a measure, nor in a resample of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ifcar.cache.protocols import KindName, LabelSpace, Unlabelled
from ifcar.pipelines.labels.contract import FloatArray, LabelKind
from ifcar.pipelines.labels.mean_ap import class_precisions, clip_precisions, mean_average_precision, rankings

TOP_K = {"top1": 1, "top5": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleLabel(LabelKind):
    """One class a clip."""

    name = "single"
    measure = "top1"
    class_measure = ("top1", "top-1")
    class_meaning = ""
    clip_measure = ("top1", "top-1")
    clip_meaning = ""
    right_means = "the label is the most probable class"
    exclusive = True

    def as_trained(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return class numbers as int64, which indexing takes."""
        return stored.astype(np.int64)

    def shown(self, targets: NDArray[Any], num_classes: int) -> NDArray[np.bool_]:
        """Return (n, K) one-hot targets."""
        one_hot: NDArray[np.bool_] = targets[:, None] == np.arange(num_classes)
        return one_hot

    def class_loss(self, logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
        """Return the cross entropy of the softmax."""
        return F.cross_entropy(logits.transpose(1, 2), targets, label_smoothing=label_smoothing, reduction="none")

    def mean_loss(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> float:
        """Return the mean cross entropy."""
        return float(-self.comparable(logits)[np.arange(len(targets)), targets].mean())

    def probabilities(self, logits: NDArray[np.float32]) -> FloatArray:
        """Return the softmax."""
        shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
        total: FloatArray = shifted / shifted.sum(axis=-1, keepdims=True)
        return total

    def logits_of(self, probability: FloatArray) -> NDArray[np.float32]:
        """Return log p."""
        return _logarithm(probability).astype(np.float32)

    def comparable(self, logits: NDArray[np.float32]) -> FloatArray:
        """Return the logarithm of the softmax, finite where a probability is too small for a float."""
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        logs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return logs

    def measures(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> dict[str, float]:
        """Return top-1 and top-5, see `target_ranks`."""
        ranks = target_ranks(logits, targets)
        return {key: float((ranks < k).mean()) for key, k in TOP_K.items()}

    def class_scores(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> FloatArray:
        """Return each class's top-1."""
        num_classes = logits.shape[1]
        counts = np.bincount(targets, minlength=num_classes)
        hits = np.bincount(targets[logits.argmax(axis=1) == targets], minlength=num_classes)
        shares: FloatArray = np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)
        return shares

    def clip_scores(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> FloatArray:
        """Return 1 where the own class scores above all others, else 0."""
        return (target_ranks(logits, targets) < TOP_K["top1"]).astype(np.float64)

    def right(self, probability: FloatArray, targets: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where the own class is more probable than every other."""
        return target_ranks(probability, targets) < TOP_K["top1"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiLabel(LabelKind):
    """Any number of classes a clip.

    Args:
        unlabelled: where clips without any label rank, see `LabelSpace`.
    """

    unlabelled: Unlabelled = "last"

    name = "multi"
    measure = "map"
    class_measure = ("ap", "average precision")
    class_meaning = (
        "Average precision: as estimated for endlessly many clips of the kind; that of few clips lies above it. "
    )
    clip_measure = ("clip_ap", "per-clip AP")
    clip_meaning = "Per-clip AP: over the labels of a clip, the mean precision at their ranks among all classes. "
    right_means = "every label is more probable than all other classes"
    exclusive = False

    def as_trained(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return the labels as they are."""
        return stored

    def shown(self, targets: NDArray[Any], num_classes: int) -> NDArray[np.bool_]:
        """Return where the label is 1."""
        shown: NDArray[np.bool_] = targets > 0
        return shown

    def class_loss(self, logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
        """Return the binary cross entropy of the sigmoids, averaged over the classes that are known of the clip."""
        known = targets >= 0
        labels = targets.clamp(min=0).to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (each * known).sum(-1) / known.sum(-1).clamp(min=1)

    def focal_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return −w (1 − p_t)² log p_t, averaged over the classes that are known of the clip.

        p is the sigmoid in [1e-7, 1 − 1e-7], p_t = p for a label and 1 − p else, and w = 10 for a label and 1 else
        (released code of Rai et al. 2021).
        """
        known, labels = targets >= 0, targets.clamp(min=0).to(logits.dtype)
        probability = logits.sigmoid().clamp(1e-7, 1 - 1e-7)
        right = torch.where(labels > 0, probability, 1 - probability)
        each = -(1 + 9 * labels) * (1 - right).square() * right.log()
        return (each * known).sum(-1) / known.sum(-1).clamp(min=1)

    def mean_loss(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> float:
        """Return the mean binary cross entropy over all known labels."""
        scores, known = logits.astype(np.float64), targets >= 0
        each = np.logaddexp(0.0, scores) - np.maximum(targets, 0) * scores
        return float(each[known].mean()) if known.any() else float("nan")

    def probabilities(self, logits: NDArray[np.float32]) -> FloatArray:
        """Return the sigmoid of each logit."""
        each: FloatArray = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
        return each

    def logits_of(self, probability: FloatArray) -> NDArray[np.float32]:
        """Return log p − log(1 − p)."""
        return (_logarithm(probability) - _logarithm(1.0 - probability)).astype(np.float32)

    def comparable(self, logits: NDArray[np.float32]) -> FloatArray:
        """Return the logits as they are."""
        return logits.astype(np.float64)

    def measures(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> dict[str, float]:
        """Return mAP, and mAP with each class weighted by its clips, where a clip has a label."""
        if not (targets > 0).any():
            return {}
        ways = {"map": False, "weighted_map": True}
        return {
            key: mean_average_precision(logits, targets, self.unlabelled, weighted=own) for key, own in ways.items()
        }

    def class_scores(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> FloatArray:
        """Return each class's average precision."""
        return class_precisions(logits, targets, self.unlabelled)

    def rankings(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.int64]:
        """Return them with those of which the class is unknown, and unlabelled ones where these rank last, behind."""
        return rankings(logits, targets, self.unlabelled)

    def clip_scores(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> FloatArray:
        """Return each clip's average precision over its labels, see `clip_precisions`."""
        return clip_precisions(logits, targets)

    def right(self, probability: FloatArray, targets: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where every label is more probable than every class that is none; without labels False."""
        shown = targets > 0
        lowest = np.where(shown, probability, np.inf).min(axis=1)
        highest = np.where(targets == 0, probability, -np.inf).max(axis=1)
        first: NDArray[np.bool_] = (lowest > highest) & shown.any(axis=1)
        return first


def label_kind(name: KindName, unlabelled: Unlabelled = "last") -> LabelKind:
    """Return the kind of that name."""
    return MultiLabel(unlabelled=unlabelled) if name == "multi" else SingleLabel()


def kind_of(space: LabelSpace) -> LabelKind:
    """Return the kind of a label space's labels."""
    return label_kind(space.kind, space.unlabelled)


def target_ranks(scores: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.int64]:
    """Return (n,) how many other classes score at least as high as a clip's own; below k means right at top-k.

    Ties count against the prediction.

    Args:
        scores: (n, K) logits or probabilities.
        targets: (n,) classes.
    """
    own = scores[np.arange(len(targets)), targets]
    ranks: NDArray[np.int64] = (scores >= own[:, None]).sum(axis=1) - 1
    return ranks


def _logarithm(probability: FloatArray) -> FloatArray:
    logs: FloatArray = np.log(np.maximum(probability, float(np.finfo(np.float32).tiny)))
    return logs
