"""Persons' boxes at key frames: what the ids of the persons and the names of their classes say.

person's id   VIDEO,SECOND,x1,y1,x2,y2      corners as shares of the frame; how a line of AVA's files begins
class name    NUMBER NAME                   the action's number in those files
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Corners = tuple[float, float, float, float]

_SHARE = r"(?:[01]\.[0-9]+|[0-9](?:\.[0-9]+)?e-[0-9]+)"
_NAME = re.compile(rf"(?P<video>.+),(?P<second>[0-9]{{4,}})(?P<corners>(?:,{_SHARE}){{4}})", re.DOTALL)
_CLASS_NAME = re.compile(r"(?P<number>[0-9]{1,9}) .+", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFrameBox:
    """A box at a key frame.

    Args:
        video: the video's name.
        second: where the key frame lies in the video.
        corners: (x1, y1, x2, y2) as shares of the frame's sides.
    """

    video: str
    second: int
    corners: Corners

    @property
    def name(self) -> str:
        """The person's id, from which `parse_box` gives the box again."""
        return ",".join([self.video, f"{self.second:04d}", *map(str, self.corners)])


def parse_box(name: str) -> KeyFrameBox | None:
    """Return the box that an id names, or None when it names none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    x1, y1, x2, y2 = (float(corner) for corner in match["corners"][1:].split(","))
    return KeyFrameBox(video=match["video"], second=int(match["second"]), corners=(x1, y1, x2, y2))


def key_frame_boxes(names: Sequence[str], classes: Sequence[str]) -> list[KeyFrameBox] | None:
    """Return the boxes of what a protocol labels, or None where that is something else.

    Args:
        names: ids of instances, or of clips that are one person each.
        classes: the class names.
    """
    if not all(_CLASS_NAME.fullmatch(name) for name in classes):
        return None
    boxes = [box for name in names if (box := parse_box(name)) is not None]
    return boxes if len(boxes) == len(names) else None


def class_number(name: str) -> int:
    """Return the action's number that a class's name begins with."""
    return int(name.split(" ", 1)[0])
