"""Files of detected boxes: tracks with classes and scores, perhaps masks, in place of the boxes of a dataset.

    NAME.json         {clip id: [record, …], …}, see `ifcar.extract.datasets.box_records`; a label states its track
                      too, "category" (the class), "score", whether it is a "subject" and perhaps a "mask": COCO's run
                      lengths of 100 × 100 over the whole frame
    NAME.meta.json    about that file: its SHA-256, the detector and its options, the classes by number, whether labels
                      have masks, and the rate that frame numbers count in

Without the second, boxes are read with their categories alone, and frame numbers count at the dataset's own rate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import MASKS, SCORES, ArraySpec, object_classes
from ifcar.errors import InputError
from ifcar.extract.coco import MASK_SIDE, decode_mask, encode_mask
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.box_records import read_tracks, stream_records
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.datasets.strict_json import read_json
from ifcar.extract.tracks import Tracks

_EXPECTED = "the file that `ifcar detect` wrote beside it"


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxFileFacts:
    """What NAME.meta.json says.

    Args:
        boxes_sha256: of NAME.json.
        detector: which one, its weights and its options: JSON values that say how the boxes were made.
        classes: names of the class numbers.
        has_masks: whether labels have masks.
        fps: the rate that frame numbers count in.
    """

    boxes_sha256: str
    detector: Mapping[str, Any]
    classes: tuple[str, ...]
    has_masks: bool
    fps: float

    def arrays(self) -> tuple[ArraySpec, ...]:
        """Return the arrays that the tracks carry beside boxes."""
        return arrays_of(self.classes, has_masks=self.has_masks)

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "classes": list(self.classes)}


def arrays_of(classes: Sequence[str], *, has_masks: bool) -> tuple[ArraySpec, ...]:
    """Return the arrays that tracks of a detector of these classes carry."""
    return (*((MASKS,) if has_masks else ()), object_classes(classes), SCORES)


def facts_path(boxes: Path) -> Path:
    """Return where a file's facts are."""
    return boxes.with_suffix(".meta.json")


def read_facts(boxes: Path) -> BoxFileFacts | None:
    """Return the facts of a file, None where there are none.

    Raises:
        InputError: they are not of that form.
    """
    path = facts_path(boxes)
    if not path.is_file():
        return None
    content = read_json(path)
    kinds = {"boxes_sha256": str, "detector": dict, "classes": list, "has_masks": bool, "fps": int | float}
    for name, kind in kinds.items():
        if not isinstance(content, dict) or not isinstance(content.get(name), kind):
            raise InputError(f"{path}: states no {name!r}, or in another form; expected {_EXPECTED}")
    classes = tuple(content["classes"])
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes) or not classes:
        raise InputError(f"{path}: its classes are not different names; expected {_EXPECTED}")
    if not 0 < content["fps"] < 1e6:
        raise InputError(f"{path}: fps is {content['fps']!r}; expected frames per second")
    own = {name: content[name] for name in kinds}
    return BoxFileFacts(**{**own, "classes": classes, "fps": float(content["fps"])})


def read_detected(
    path: Path, facts: BoxFileFacts | None, digest: hashlib._Hash, wanted: set[str], box_notes: BoxNotes
) -> Iterator[tuple[str, Tracks | None]]:
    """Yield every clip of a file, with its tracks where it is wanted.

    Args:
        path: the file.
        facts: its facts, for which the tracks carry arrays.
        digest: takes the file's bytes.
        wanted: ids.
        box_notes: looks at the boxes.

    Raises:
        InputError: the file is not of that form, or its facts are another file's.
    """
    reader = None if facts is None else _LabelValues(facts)
    for clip_id, records in stream_records(path, digest):
        if clip_id not in wanted:
            yield clip_id, None
        elif reader is None:
            yield clip_id, read_tracks(path, clip_id, records, box_notes)
        else:
            yield clip_id, read_tracks(path, clip_id, records, box_notes, values_of=reader.read, empty=reader.empty)
    if facts is not None and digest.hexdigest() != facts.boxes_sha256:
        raise InputError(
            f"{facts_path(path)}: is about a file of SHA-256 {facts.boxes_sha256[:12]}…, and {path} has "
            f"{digest.hexdigest()[:12]}…; put back the file that it was written for, or remove it to read boxes alone"
        )


class _LabelValues:
    """Reads what labels have beside their boxes."""

    def __init__(self, facts: BoxFileFacts) -> None:
        self.numbers = {name: np.asarray(number, np.int16) for number, name in enumerate(facts.classes)}
        self.has_masks = facts.has_masks
        self.empty: dict[str, NDArray[Any]] = {
            "object_classes": np.asarray(-1, np.int16),
            SCORES.name: np.zeros((), np.float32),
        }
        if facts.has_masks:
            self.empty["masks"] = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)

    def read(self, where: str, label: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        name = label.get("category")
        if not isinstance(name, str) or name not in self.numbers:
            raise InputError(f"{where}: category {name!r:.80} is none of the {len(self.numbers)} classes of the file")
        score = label.get("score")
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise InputError(f"{where}: score {score!r:.80} of {name!r}; expected 0 to 1, as the detector wrote it")
        values: dict[str, NDArray[Any]] = {
            "object_classes": self.numbers[name],
            SCORES.name: np.asarray(score, np.float32),
        }
        if self.has_masks:
            counts = label.get("mask")
            if not isinstance(counts, str) or not counts.isascii():
                raise InputError(f"{where}: a label has no mask; expected run lengths of {MASK_SIDE} × {MASK_SIDE}")
            mask = decode_mask(counts.encode(), MASK_SIDE, MASK_SIDE, f"{where}, mask of {name!r}")
            values["masks"] = mask * np.uint8(255)
        return values


def records_of(
    clip_id: str,
    frames: NDArray[np.int64],
    found: Sequence[FrameDetections],
    tracks: Sequence[NDArray[np.int64]],
    classes: Sequence[str],
    subjects: Sequence[str],
) -> list[dict[str, Any]]:
    """Return a clip's records.

    Args:
        clip_id: the clip.
        frames: (F,) frame numbers from 0.
        found: of each frame.
        tracks: of each frame, the track of each box; negative: left out.
        classes: names of the class numbers.
        subjects: those of subjects.
    """
    records = []
    for frame, boxes, numbers in zip(frames.tolist(), found, tracks, strict=True):
        labels = []
        for place in np.flatnonzero(numbers >= 0).tolist():
            name = classes[int(boxes.classes[place])]
            corners = (round(float(value), 2) for value in boxes.boxes[place])
            label: dict[str, Any] = {
                "box2d": dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True)),
                "standard_category": name,
                "category": name,
                "score": round(float(boxes.scores[place]), 4),
                "track": int(numbers[place]),
                "subject": name in subjects,
            }
            if boxes.masks[place].size:
                label["mask"] = encode_mask(boxes.masks[place])
            labels.append(label)
        records.append({"name": f"{clip_id}/{frame + 1:04d}.jpg", "labels": labels})
    return records


def tracks_of(clip_id: str, records: Sequence[Mapping[str, Any]], facts: BoxFileFacts) -> Tracks:
    """Return a clip's records as tracks, as a file of them would be read."""
    reader = _LabelValues(facts)
    plain = json.loads(json.dumps(records))
    return read_tracks(Path("detected boxes"), clip_id, plain, values_of=reader.read, empty=reader.empty)
