"""What a kind of labels decides about loss, probabilities and measures, see `kinds`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.protocols import KindName
from ifcar.errors import InputError
from ifcar.pipelines.labels.mean_ap import rankings

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.float64]
MEASURES = {  # keys of metrics.json and what tables call them
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "weighted_map": "weighted mAP",
}


class LabelKind(ABC):
    """How labels of one kind are learned and measured.

    Attributes:
        name: of the kind, as caches and runs state it.
        measure: key in `MEASURES` of the measure that decides.
        class_measure: key and title of what a class scores.
        class_meaning: a sentence, with a space after it, on what a class's difference between systems is of; else "".
        clip_measure: key and title of what a clip scores.
        clip_meaning: a sentence, with a space after it, on `clip_measure` where that is no measure of a table; else "".
        right_means: when a clip counts as right, as a clause.
        exclusive: whether a clip shows one class only, so that classes can be taken for one another, and the measure is
            the mean of the clips' scores.
    """

    name: ClassVar[KindName]
    measure: ClassVar[str]
    class_measure: ClassVar[tuple[str, str]]
    class_meaning: ClassVar[str]
    clip_measure: ClassVar[tuple[str, str]]
    clip_meaning: ClassVar[str]
    right_means: ClassVar[str]
    exclusive: ClassVar[bool]

    @abstractmethod
    def as_trained(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return targets as they are stored, in the type in which losses and measures take them."""

    @abstractmethod
    def shown(self, targets: NDArray[Any], num_classes: int) -> NDArray[np.bool_]:
        """Return (n, K), True where a clip has the class."""

    @abstractmethod
    def class_loss(self, logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
        """Return the loss (M, B) of every clip of M heads.

        Args:
            logits: (M, B, K).
            targets: (M, B) classes, or (M, B, K) labels.
            label_smoothing: ε; moves targets to 1 − ε + ε/K and ε/K, or labels to 1 − ε/2 and ε/2.
        """

    def focal_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the focal loss (M, B) of every clip of M heads, see `Multi.focal_loss`.

        Raises:
            InputError: these labels have none.
        """
        raise InputError(f"the focal loss is one of several labels a clip; these are {self.name}")

    @abstractmethod
    def mean_loss(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> float:
        """Return the mean class loss of n clips in float64."""

    @abstractmethod
    def probabilities(self, logits: NDArray[np.float32]) -> FloatArray:
        """Return the probability of every class, along the last axis."""

    @abstractmethod
    def logits_of(self, probability: FloatArray) -> NDArray[np.float32]:
        """Return logits with these probabilities."""

    @abstractmethod
    def comparable(self, logits: NDArray[np.float32]) -> FloatArray:
        """Return logits that rank views of a clip as their probabilities do."""

    @abstractmethod
    def measures(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> dict[str, float]:
        """Return the measures by their keys, the one that decides first; none where no clip has a label."""

    @abstractmethod
    def class_scores(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> FloatArray:
        """Return (K,) what each class scores; NaN for a class without a clip."""

    @abstractmethod
    def clip_scores(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> FloatArray:
        """Return (n,) how right each clip is, 0 to 1."""

    @abstractmethod
    def right(self, probability: FloatArray, targets: NDArray[Any]) -> NDArray[np.bool_]:
        """Return (n,) True where the clip's classes are more probable than all others; a tie counts against it."""

    def rankings(self, logits: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.int64]:
        """Return (K, n) the clips by falling score of each class."""
        return rankings(logits, self.shown(targets, logits.shape[1]).astype(np.int8))

    def per_class(
        self, logits: NDArray[np.float32], targets: NDArray[Any], classes: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return name, clips and score of each class that has clips, worst first."""
        key, _ = self.class_measure
        counts, scores = self.shown(targets, len(classes)).sum(axis=0), self.class_scores(logits, targets)
        rows = [{"class": c, "n": int(counts[k]), key: float(scores[k])} for k, c in enumerate(classes) if counts[k]]
        return sorted(rows, key=lambda row: (row[key], row["class"]))
