"""Linking of a detector's boxes into tracks in two stages: first those it is sure of, then the others.

Source: Zhang et al. 2022, "ByteTrack". In every frame, of each class by itself: boxes of a high score are matched with
the tracks by overlap with their last box, highest total first; then those of a low score with the tracks that are left.
A box of a higher score yet that is matched with none begins a track. Differs: no motion is foreseen, and nothing is
interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ifcar.config_fields import Bounds, check_fields
from ifcar.errors import InputError
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.tracks import box_iou
from ifcar.extract.view_options import SHARE

NO_TRACK = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkConfig:
    """When boxes are one thing.

    Args:
        score: least of a box that is linked at all.
        high_score: least of one that is matched in the first stage.
        new_score: least of one that begins a track.
        link_overlap: least intersection over union of a box with the track's last one.
        patience: frames in a row that a track may have no box.
        least_boxes: tracks with fewer are left out.
    """

    score: Annotated[float, SHARE] = 0.1
    high_score: Annotated[float, SHARE] = 0.5
    new_score: Annotated[float, SHARE] = 0.6
    link_overlap: Annotated[float, SHARE] = 0.3
    patience: Annotated[int, Bounds(least=0, most=10_000)] = 10
    least_boxes: Annotated[int, Bounds(least=1, most=10_000)] = 3

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.score <= self.high_score <= self.new_score:
            raise InputError(
                f"score, high_score and new_score are {self.score:g}, {self.high_score:g} and {self.new_score:g}; "
                "expected none below the one before"
            )


@dataclass(slots=True)
class _Track:
    number: int
    cls: int
    last_box: NDArray[np.float32]
    last_frame: int
    num_boxes: int = 1


def link_two_stage(found: Sequence[FrameDetections], config: LinkConfig) -> list[NDArray[np.int64]]:
    """Return the track of each box, `NO_TRACK` of one that is in none.

    Tracks are numbered from 0 without gaps, in the order in which they begin.

    Args:
        found: of frames in a row.
        config: when boxes are one thing.
    """
    tracks: list[_Track] = []
    numbers = [np.full(len(frame.scores), NO_TRACK, np.int64) for frame in found]
    for time, frame in enumerate(found):
        alive = [track for track in tracks if time - track.last_frame <= config.patience + 1]
        high = frame.scores >= config.high_score
        for stage in (high, ~high & (frame.scores >= config.score)):
            for track, place in _matches(alive, frame, np.flatnonzero(stage), config.link_overlap):
                numbers[time][place] = track.number
                track.last_box, track.last_frame = frame.boxes[place], time
                track.num_boxes += 1
            alive = [track for track in alive if track.last_frame < time]
        for place in np.flatnonzero((numbers[time] == NO_TRACK) & (frame.scores >= config.new_score)).tolist():
            numbers[time][place] = len(tracks)
            tracks.append(_Track(len(tracks), int(frame.classes[place]), frame.boxes[place], time))
    return _renumbered(numbers, [track.num_boxes >= config.least_boxes for track in tracks])


def _matches(
    tracks: Sequence[_Track], frame: FrameDetections, places: NDArray[Any], least_overlap: float
) -> list[tuple[_Track, int]]:
    """Return which tracks go on in which of the boxes at these places: the highest total overlap."""
    if not tracks or not len(places):
        return []
    overlap = box_iou(np.stack([track.last_box for track in tracks]), frame.boxes[places])
    same = np.array([track.cls for track in tracks])[:, None] == frame.classes[places]
    overlap = np.where(same & (overlap >= least_overlap), overlap, 0.0)
    rows, columns = linear_sum_assignment(-overlap)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(tracks[row], int(places[column])) for row, column in pairs if overlap[row, column] > 0]


def _renumbered(numbers: Sequence[NDArray[np.int64]], kept: Sequence[bool]) -> list[NDArray[np.int64]]:
    """Return track numbers with those that are not kept taken out, and without gaps."""
    new = np.where(kept, np.cumsum(kept) - 1, NO_TRACK) if len(kept) else np.zeros(0, np.int64)
    new = np.append(new, NO_TRACK).astype(np.int64)  # where NO_TRACK, the last, points to
    return [new[frame] for frame in numbers]
