"""What is strange about the boxes of a data set as a whole, and is said in a line each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.schema import Category
from ifcar.counts import count_of

SHARES = (-0.5, 1.5)
"""What corners in shares of the picture's sides lie within, those of boxes that reach past its border too."""
_NUM_KINDS = 5


class BoxNotes:
    """Looks at every box that is read: whether it has an area, whose it is, and whether it is in the reader's unit.

    Boxes without area (x2 ≤ x1 or y2 ≤ y1) are left out by the readers as if they were not in the file.

    Args:
        shares: whether boxes are read as shares of the picture's sides, and not as pixels.
    """

    def __init__(self, *, shares: bool = False) -> None:
        self.shares = shares
        self.num_flat = self.num_clips = self.num_foreign = self.num_tracks = self.num_subjects = 0
        self.num_twice = self.num_scaled = 0
        self.first_flat = self.first_foreign = self.first_twice = self.first_scaled = ""
        self._kinds: dict[str, None] = {}

    def add_flat(self, where: str) -> None:
        """Count a box without area."""
        self.first_flat = self.first_flat or where
        self.num_flat += 1

    def add_twice(self, where: str) -> None:
        """Count a box that the file has already."""
        self.first_twice = self.first_twice or where
        self.num_twice += 1

    def add_scaled(self, where: str) -> None:
        """Count a video whose boxes are of pictures of another size than its frames."""
        self.first_scaled = self.first_scaled or where
        self.num_scaled += 1

    def add_clip(
        self, where: str, boxes: NDArray[Any], categories: NDArray[np.uint8], kinds: Iterable[str] = ()
    ) -> None:
        """Look at the boxes of a clip.

        Args:
            where: names the clip.
            boxes: (F, N, 4) x1, y1, x2, y2; NaN where a track has no box.
            categories: (N,) of the tracks.
            kinds: what the file calls what is in the boxes; looked at until there is a subject.
        """
        if not np.isfinite(boxes).any():
            return
        self.num_clips += 1
        self.num_tracks += len(categories)
        self.num_subjects += int((categories == Category.SUBJECT).sum())
        if not self.num_subjects and len(self._kinds) <= _NUM_KINDS:
            self._kinds |= dict.fromkeys(sorted(set(kinds)))
        if in_shares(boxes) != self.shares:
            self.first_foreign = self.first_foreign or where
            self.num_foreign += 1

    def lines(self, *, expects_subjects: bool = True) -> list[str]:
        """Return a line for everything that is strange.

        Args:
            expects_subjects: whether some of the boxes should be of hands or persons.
        """
        lines = []
        if self.num_foreign:
            count = f"{self.num_foreign:,} of {self.num_clips:,} clips with boxes"
            lines.append(unit_note(f"{count}, the first {self.first_foreign}", shares=self.shares))
        if expects_subjects and self.num_clips and not self.num_subjects:
            kinds = [repr(kind)[:40] for kind in self._kinds]
            named = f" ({', '.join(kinds[:_NUM_KINDS])}{', …' if len(kinds) > _NUM_KINDS else ''})" if kinds else ""
            lines.append(
                f"no box is of a subject, a hand or person: all {self.num_tracks:,} tracks are objects{named}; heads "
                "that tell the two apart see objects alone"
            )
        if self.num_flat:
            count = count_of(self.num_flat, "box without area is", "boxes without area are")
            lines.append(f"{count} left out, the first: {self.first_flat}")
        if self.num_twice:
            count = count_of(self.num_twice, "box is", "boxes are")
            lines.append(f"{count} listed twice and taken once, the first: {self.first_twice}")
        if self.num_scaled:
            videos = count_of(self.num_scaled, "video")
            lines.append(
                f"boxes of {videos} are scaled from the stated size of pictures, the first: {self.first_scaled}"
            )
        return lines


def in_shares(boxes: NDArray[Any]) -> bool:
    """Return whether there are boxes, (…, 4) with NaN for none, and all are as small as shares of a picture's sides."""
    finite = boxes[np.isfinite(boxes)]
    return bool(len(finite)) and bool(((finite >= SHARES[0]) & (finite <= SHARES[1])).all())


def unit_note(what: str, *, shares: bool) -> str:
    """Return what to say of boxes that are probably not in the unit, shares or pixels, that they are read in."""
    low, high = SHARES
    if shares:
        return (
            f"{what}: corners are outside {low:g} to {high:g}, and they are read as shares of the picture's sides, as "
            "there are no pixels; if they are pixels, divide them by its width and height"
        )
    return (
        f"{what}: no corner is outside {low:g} to {high:g}, and they are read as pixels; if they are shares of the "
        "picture's sides, multiply them by its width and height"
    )
