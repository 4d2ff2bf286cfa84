"""All test clips in few bytes, from which the page's script makes cards, and the pictures that lie beside the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ifcar.cache.durable import write_atomic
from ifcar.pipelines.report.strips import CELL_GAP, CELL_WIDTH, COLUMNS, Strip, plain_strips
from ifcar.pipelines.report.views import CachedViews

PICTURES = "clips"  # folder beside the page


@dataclass(frozen=True, kw_only=True)
class PictureFolder:
    """Where pictures of clips go that are not in the page itself.

    Args:
        path: the folder, named `PICTURES`.
        prefix: of every file's name, when a report has several chapters.
        most: pictures of a chapter, at most.
        written: filled with the files' names.
    """

    path: Path
    prefix: str
    most: int
    written: list[str]

    def save(self, strip: Strip, place: int) -> Strip:
        """Write the picture of the test clip at `place`; return its strip with the file's address for the picture."""
        name = f"{self.prefix}{place:05d}.jpg"
        write_atomic(self.path / name, base64.b64decode(strip.jpeg.partition(",")[2]))
        self.written.append(name)
        return replace(strip, jpeg=f"{PICTURES}/{name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What is told of a clip.

    Args:
        clip_id: its id.
        classes: numbers of its classes, from 0.
        outcome: place in the gallery's outcomes.
        instances: their number; −1 where it is not known.
        verdicts: of A, and of B: whether it is right, then class and probability of each guess in turn.
    """

    clip_id: str
    classes: Sequence[int]
    outcome: int
    instances: int
    verdicts: Sequence[tuple[bool, Sequence[tuple[int, float]]]]


def records_of(
    clips: Sequence[Told],
    classes: Sequence[str],
    views: CachedViews | str,
    in_page: Sequence[str],
    pictured: Mapping[str, Strip],
) -> dict[str, object]:
    """Return what `clips.js` reads.

    Args:
        clips: all, in the order of the browser.
        classes: names.
        views: the cached views, or why there are none: then clips have no boxes.
        in_page: ids of the clips whose cards are in the page.
        pictured: strips of clips with a picture beside the page, by id; the others show their boxes.
    """
    strips = dict(pictured)
    if not isinstance(views, str):
        done = {*in_page, *pictured}
        strips |= plain_strips(views, [clip.clip_id for clip in clips if clip.clip_id not in done])
    colours = list(dict.fromkeys(box.colour for strip in strips.values() for box in strip.boxes))
    number_of = {colour: number for number, colour in enumerate(colours)}
    return {
        "classes": list(classes),
        "layout": {"width": CELL_WIDTH, "gap": CELL_GAP, "columns": COLUMNS, "colours": colours},
        "clips": [
            [
                clip.clip_id,
                list(clip.classes),
                clip.outcome,
                clip.instances,
                [_verdict(right, guesses) for right, guesses in clip.verdicts],
                _strip(strips[clip.clip_id], number_of) if clip.clip_id in strips else None,
            ]
            for clip in clips
        ],
    }


def _verdict(right: bool, guesses: Sequence[tuple[int, float]]) -> list[int]:
    return [int(right), *(value for number, share in guesses for value in (number, round(1000 * share)))]


def _strip(strip: Strip, number_of: Mapping[str, int]) -> list[object]:
    boxes = [
        value
        for box in strip.boxes
        for value in (number_of[box.colour], int(box.subject), *map(round, (box.x, box.y, box.width, box.height)))
    ]
    return [strip.cell_height, [cell.number for cell in strip.cells], strip.jpeg, boxes]
