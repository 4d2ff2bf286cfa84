"""What a run detects whose examples are boxes at key frames: frame AP, and a file as AVA's evaluation reads it.

The file has a line for each box and class, VIDEO,SECOND,x1,y1,x2,y2,ACTION,SCORE, the corners as shares of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.durable import write_atomic_parts
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.errors import InputError
from ifcar.extract.datasets.key_frames import KeyFrameBox, class_number, key_frame_boxes
from ifcar.pipelines.feed.labelled import read_labelled
from ifcar.pipelines.scoring.frame_map import FrameBoxes, frame_precisions
from ifcar.pipelines.scoring.scores import Predictions


@dataclass(frozen=True, kw_only=True, slots=True)
class Detections:
    """Scored boxes of a protocol's test part.

    Args:
        boxes: n boxes.
        classes: K class names.
        scores: (n, K) probabilities.
        precisions: frame AP of each class that a test clip shows, see `ifcar.pipelines.scoring.frame_map`.
    """

    boxes: Sequence[KeyFrameBox]
    classes: Sequence[str]
    scores: NDArray[np.float64]
    precisions: Mapping[str, float]

    @property
    def frame_map(self) -> float:
        """The mean of the frame APs."""
        return float(np.mean(list(self.precisions.values())))

    def write(self, path: Path) -> None:
        """Write the file, a box at a time.

        Raises:
            InputError: it is there and holds anything else: annotations have the same form.
        """
        if path.exists() and not (path.is_file() and self._is_in(path)):
            raise InputError(f"--detections: {path} is there and holds something else; name a new file")
        write_atomic_parts(path, self._parts())

    def _is_in(self, path: Path) -> bool:
        with path.open("rb") as file:
            return all(file.read(len(part)) == part for part in self._parts()) and not file.read(1)

    def _parts(self) -> Iterator[bytes]:
        """Yield the lines of each box."""
        actions = [class_number(name) for name in self.classes]
        for box, own in zip(self.boxes, self.scores, strict=True):
            scored = zip(actions, own.tolist(), strict=True)
            yield "".join(f"{box.name},{action},{score:.9g}\n" for action, score in scored).encode()


def detect(predictions: Predictions, protocol: ProtocolTable, clip_ids: Sequence[str]) -> Detections | None:
    """Return what a run's predictions of the test part detect, or None where they are of no boxes at key frames.

    The annotated boxes are those of all test clips in the cache, so that a clip which could not be extracted is missed.
    A person whose actions are all unknown is no annotated box.

    Args:
        predictions: of the test part.
        protocol: its table.
        clip_ids: the cache's clips, in order.
    """
    space, tested = protocol.labels, read_labelled(protocol, Split.TEST, clip_ids)
    true = key_frame_boxes(tested.names.tolist(), space.classes)
    found = key_frame_boxes(predictions.clip_ids.tolist(), space.classes)
    if true is None or found is None or predictions.kind.exclusive:
        return None
    scores = predictions.kind.probabilities(predictions.logits)
    numbers: dict[tuple[str, int], int] = {}
    annotated = _frame_boxes(true, numbers)
    precisions = frame_precisions(_frame_boxes(found, numbers), scores, annotated, tested.targets)
    shown = {name: float(value) for name, value in zip(space.classes, precisions, strict=True) if value == value}
    return Detections(boxes=found, classes=space.classes, scores=scores, precisions=shown)


def _frame_boxes(boxes: Sequence[KeyFrameBox], numbers: dict[tuple[str, int], int]) -> FrameBoxes:
    """Return boxes with their key frames numbered; `numbers` grows by the key frames that it lacks."""
    frames = [numbers.setdefault((box.video, box.second), len(numbers)) for box in boxes]
    return FrameBoxes(
        frames=np.array(frames, np.int64), boxes=np.array([box.corners for box in boxes], np.float64).reshape(-1, 4)
    )
