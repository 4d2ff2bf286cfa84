"""Files of proposals, boxes by clip and frame without classes and tracks: their rows as they stand in the file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.npz import NpzError, read_arrays
from ifcar.errors import InputError
from ifcar.extract.datasets.json_stream import stream_entries
from ifcar.extract.limits import MAX_FRAME_NUMBER

BY_FRAME = "{clip id: {frame number: [[x1, y1, x2, y2], …]}}"
FRAME_KEY = re.compile(r"[0-9]{1,12}")
_ARRAYS = "clip (B,) text, frame (B,) whole numbers, box (B, 4) and perhaps score (B,)"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalRows:
    """A clip's boxes in the file's order: frame (B,) from 0, box (B, 4), score (B,) or None."""

    frame: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float64] | None


def read_json_rows(path: Path, digest: hashlib._Hash) -> Iterator[tuple[str, ProposalRows]]:
    """Yield the rows of each clip of a JSON file. Raises InputError naming what is not of the form `BY_FRAME`."""
    width = 0
    for clip_id, frames in stream_entries(path, digest, BY_FRAME):
        if not isinstance(frames, dict):
            raise InputError(
                f"{path}: clip {clip_id!r}: expected {{frame number: boxes}}, found {type(frames).__name__}"
            )
        numbers, values = [], []
        seen: set[int] = set()
        for key, boxes in frames.items():
            number = int(key) if FRAME_KEY.fullmatch(key) else 0
            if not 1 <= number <= MAX_FRAME_NUMBER or number in seen:
                raise InputError(
                    f"{path}: clip {clip_id!r}: frame number {key!r:.80}; expected whole numbers from 1, each once"
                )
            seen.add(number)
            for box in boxes if isinstance(boxes, list) else [boxes]:
                width = width or (len(box) if isinstance(box, list) else 0)
                values.append(_numbers(path, clip_id, key, box, width))
                numbers.append(number - 1)
        table = np.array(values, np.float64).reshape(-1, max(4, width))
        score = table[:, 4] if width == 5 else None
        yield clip_id, ProposalRows(frame=np.array(numbers, np.int64), box=table[:, :4], score=score)


def _numbers(path: Path, clip_id: str, frame: str, box: Any, width: int) -> list[float]:
    """Return a box as it is in the file, when it is as many numbers as the file's first one, 4 or 5."""
    plain = isinstance(box, list) and all(type(value) in (int, float) for value in box)
    if not plain or len(box) != width or width not in (4, 5) or not all(abs(value) < 1e300 for value in box):
        raise InputError(
            f"{path}: clip {clip_id!r}, frame {frame}: box {box!r:.120}; expected numbers [x1, y1, x2, y2], or with a "
            "score behind them in every box of the file"
        )
    return [float(value) for value in box]


def read_npz_rows(path: Path, digest: hashlib._Hash) -> Iterator[tuple[str, ProposalRows]]:
    """Yield the rows of each clip of a file of arrays. Raises InputError naming what is not of that form."""
    with path.open("rb") as file:
        while content := file.read(1 << 20):
            digest.update(content)
    try:
        arrays = read_arrays(path, ("clip", "frame", "box"), ("score",))
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]}; expected {_ARRAYS}") from error
    except NpzError as error:
        raise InputError(f"{path}: {error}; expected {_ARRAYS}") from error
    clip, frame, box, score = (arrays.get(name) for name in ("clip", "frame", "box", "score"))
    assert clip is not None and frame is not None and box is not None
    kinds = clip.dtype.kind == "U" and frame.dtype.kind in "iu" and box.dtype.kind in "iuf"
    shapes = clip.ndim == 1 and frame.shape == clip.shape and box.shape == (len(clip), 4)
    if not kinds or not shapes or (score is not None and (score.shape != clip.shape or score.dtype.kind not in "iuf")):
        found = ", ".join(f"{array.dtype} {array.shape}" for array in (clip, frame, box, score) if array is not None)
        raise InputError(f"{path}: holds {found}; expected {_ARRAYS}")
    wrong = np.flatnonzero((frame < 1) | (frame > MAX_FRAME_NUMBER))
    if len(wrong):
        where = f"clip {str(clip[wrong[0]])!r:.200}: frame number {frame[wrong[0]]}"
        raise InputError(f"{path}: {where}; expected 1 to {MAX_FRAME_NUMBER:,}")
    order = np.argsort(clip, kind="stable")
    bounds = np.flatnonzero(clip[order][1:] != clip[order][:-1]) + 1
    for rows in np.split(order, bounds) if len(order) else []:
        yield (
            str(clip[rows[0]]),
            ProposalRows(
                frame=frame[rows].astype(np.int64) - 1,
                box=box[rows].astype(np.float64),
                score=None if score is None else score[rows].astype(np.float64),
            ),
        )
