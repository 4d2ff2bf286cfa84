"""VLOG's files (Fouhey et al. 2018, data version 1.1): the manifest, what belongs to its lines, and masks of each clip.

meta/manifest.txt                         O/5/E/v_ID/075/; every other list has a line for each of its lines
meta/splitId.txt                          0 test; 1, 2, 3 training
meta/uploaderId.txt                       who published the video
meta/hand_object/hand_object.npy          N × 30: 1 contact, 0 inconclusive, −1 none
meta/hand_object/hand_object_labels.txt   a class a line
masks/preds_100x100_50/PATH/clip.pkl      {"segms", "boxes"}: lists [frame][81 classes][instance]; COCO's run lengths of
                                          100 × 100 over the whole frame; float32 x1, y1, x2, y2, score in the same unit
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.npz import NpzError, read_array
from ifcar.cache.protocols import UNKNOWN
from ifcar.errors import InputError, one_of
from ifcar.extract.coco import BACKGROUND, CLASSES, MASK_SIDE, decode_mask
from ifcar.extract.datasets.detections import FrameDetections, slots_of_detections
from ifcar.extract.datasets.text_rows import text_rows
from ifcar.extract.limits import MAX_COORDINATE
from ifcar.extract.safe_pickle import load_pickle
from ifcar.extract.tracks import Tracks

MANIFEST, SPLITS, UPLOADERS = "meta/manifest.txt", "meta/splitId.txt", "meta/uploaderId.txt"
LABELS, LABEL_NAMES = "meta/hand_object/hand_object.npy", "meta/hand_object/hand_object_labels.txt"
_SPLITS = ("0", "1", "2", "3")
_CONTACT, _INCONCLUSIVE, _NONE = 1, 0, -1


def read_manifest(path: Path) -> list[str]:
    """Return the path of every clip, without the slash at its end, in the order of the lines.

    Raises:
        MissingDataError: no such file.
        InputError: a line is no path below a folder, or is there twice.
    """
    clips: dict[str, None] = {}
    for where, text in text_rows(path, hashlib.sha256(), "a path a line, as O/5/E/v_ID/075/"):
        place = PurePosixPath(text)
        if place.is_absolute() or ".." in place.parts or not place.parts or "\0" in text:
            raise InputError(f"{where}: {text!r:.80} is no path of a clip, as O/5/E/v_ID/075/")
        clip = str(place)
        if clip in clips:
            raise InputError(f"{where}: {text!r:.80} is listed twice; expected each clip once")
        clips[clip] = None
    return list(clips)


def read_lines(path: Path, num_clips: int) -> list[str]:
    """Return a list's text for each line of the manifest.

    Raises:
        MissingDataError: no such file.
        InputError: it has another number of lines.
    """
    lines = [text for _, text in text_rows(path, hashlib.sha256(), "a line for each line of the manifest")]
    if len(lines) != num_clips:
        raise InputError(f"{path}: {len(lines):,} lines; {MANIFEST} has {num_clips:,}, and each needs one")
    return lines


def read_splits(path: Path, num_clips: int) -> list[int]:
    """Return the split of each line of the manifest, see `read_lines`."""
    lines = read_lines(path, num_clips)
    wrong = next((place for place, text in enumerate(lines) if text not in _SPLITS), None)
    if wrong is not None:
        raise InputError(f"{path} line {wrong + 1}: split {lines[wrong]!r:.40}; expected {one_of(_SPLITS)}")
    return [int(text) for text in lines]


def read_targets(path: Path, num_clips: int, classes: Sequence[str]) -> NDArray[np.int8]:
    """Return (num_clips, K) of the manifest's lines: 1 contact, 0 none, −1 unknown as annotators did not agree.

    Raises:
        InputError: the file is damaged, has other sizes than manifest and classes, or holds something else.
    """
    try:
        stored = read_array(path)
    except NpzError as error:
        raise InputError(f"{path}: {error}; download it again") from error
    if stored.shape != (num_clips, len(classes)) or stored.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: {stored.dtype} {stored.shape}; expected numbers {(num_clips, len(classes))}, a row for each line "
            f"of {MANIFEST} and a column for each of {LABEL_NAMES}"
        )
    wrong = np.argwhere(~np.isin(stored, (_CONTACT, _INCONCLUSIVE, _NONE)))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(f"{path}: row {row}, column {column} is {stored[row, column]}; expected 1, 0 or -1")
    return np.select([stored == _CONTACT, stored == _NONE], [1, 0], UNKNOWN).astype(np.int8)


def find_files(folder: Path, clips: Sequence[str], name: str) -> dict[str, Path]:
    """Return the file of each clip that has one: at its path, else at the only path that differs in case alone.

    Args:
        folder: holds a folder for each clip.
        clips: paths below it.
        name: of the files.
    """
    above = os.fspath(folder)
    found = {clip: folder / clip / name for clip in clips if _is_file(f"{above}/{clip}/{name}")}
    absent: dict[str, list[str]] = {}
    for clip in clips:
        if clip not in found:
            absent.setdefault(clip.casefold(), []).append(clip)
    others: dict[str, list[Path]] = {}
    exact = set(found.values())
    for path in folder.rglob(name) if absent else ():
        if path not in exact:
            others.setdefault(path.parent.relative_to(folder).as_posix().casefold(), []).append(path)
    for folded, paths in others.items():
        if len(paths) == 1 and len(absent.get(folded, ())) == 1:
            found[absent[folded][0]] = paths[0]
    return found


def _is_file(path: str) -> bool:
    """Return what `Path.is_file` does: a `Path` for each of 113,839 lines takes three times as long."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - see above
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return Path(path).is_file()


def read_masks(path: Path) -> Tracks:
    """Return a clip's detections, frame by frame, in units of 100 a side.

    Raises:
        InputError: the pickle is damaged, or not of that form; names the frame and the class.
    """
    content = load_pickle(path)
    boxes, masks = (content.get(key) if isinstance(content, dict) else None for key in ("boxes", "segms"))
    if not isinstance(boxes, list) or not isinstance(masks, list) or len(boxes) != len(masks):
        raise InputError(f"{path}: expected a mapping with lists segms and boxes, of a clip's frames")
    found = [_frame(f"{path}: frame {place}", *both) for place, both in enumerate(zip(boxes, masks, strict=True))]
    return slots_of_detections(np.arange(len(found)), found)


def _frame(where: str, boxes: Any, masks: Any) -> FrameDetections:
    by_class = [value if isinstance(value, list) else [] for value in (boxes, masks)]
    if [len(value) for value in by_class] != [len(CLASSES)] * 2:
        raise InputError(
            f"{where}: boxes of {len(by_class[0])} and masks of {len(by_class[1])} classes; expected lists of "
            f"{len(CLASSES)}, COCO's 0 to {len(CLASSES) - 1}"
        )
    classes: list[int] = []
    rows: list[list[float]] = []
    pictures: list[NDArray[np.bool_]] = []
    for number, (own, segments) in enumerate(zip(*by_class, strict=True)):
        of_class = f"{where}, class {number}"
        own, segments = (value if isinstance(value, list | np.ndarray) else [] for value in (own, segments))
        if len(own) != len(segments):
            raise InputError(f"{of_class}: {len(own)} boxes and {len(segments)} masks; expected one for each other")
        if len(own) and number == BACKGROUND:
            raise InputError(f"{of_class}: has boxes; expected none of class 0, the background")
        rows += [_box(of_class, box) for box in own]
        pictures += [_mask(of_class, segment) for segment in segments]
        classes += [number] * len(own)
    table = np.array(rows, np.float32).reshape(-1, 5)
    has_area = (table[:, 2:4] > table[:, :2]).all(axis=1)
    return FrameDetections(
        boxes=table[has_area, :4],
        scores=table[has_area, 4],
        classes=np.array(classes, np.int16)[has_area],
        masks=np.array(pictures, np.bool_).reshape(-1, MASK_SIDE, MASK_SIDE)[has_area],
    )


def _box(where: str, box: Any) -> list[float]:
    values = box.tolist() if isinstance(box, np.ndarray) else box
    numbers = values if isinstance(values, list | tuple) else ()
    # A comparison with NaN is False.
    if len(numbers) != 5 or not all(type(v) in (int, float) and abs(v) <= MAX_COORDINATE for v in numbers):
        raise InputError(f"{where}: box {values!r:.100}; expected finite x1, y1, x2, y2 and score")
    return list(numbers)


def _mask(where: str, segment: Any) -> NDArray[np.bool_]:
    size, counts = (segment.get(key) if isinstance(segment, dict) else None for key in ("size", "counts"))
    if not isinstance(counts, bytes | str) or not isinstance(size, list | tuple) or list(size) != [MASK_SIDE] * 2:
        raise InputError(f"{where}: a mask of size {size!r:.40}; expected run lengths of [{MASK_SIDE}, {MASK_SIDE}]")
    return decode_mask(counts.encode("latin1") if isinstance(counts, str) else counts, MASK_SIDE, MASK_SIDE, where)
