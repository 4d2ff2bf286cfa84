"""Boxes that lie beyond the picture."""

from __future__ import annotations

import numpy as np

from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check

LEAST_INSIDE = 0.1
"""Of a box's area, what has to be in the picture; objects that leave it have boxes that reach past its border."""
MOST_SIDE = 1.5
"""Sides of the picture, which those of a box have at most."""


@register_check
class OutsidePicture(Check):
    """Next to nothing of a box is in the picture, or it is much larger than that."""

    name = "outside-picture"
    title = "Boxes beyond the picture"
    meaning = (
        "A box is cut at the picture's border, and one that lies wholly beyond it is an empty slot: the instance is "
        "not seen. Where it is so in many clips, boxes and pictures are of different sizes."
    )
    remedy = "Compare the size that the boxes were drawn at with that of the pictures, and scale the boxes."

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        corners = seen.corners()
        if not corners.size:
            return None
        sides = corners[..., 2:] - corners[..., :2]
        area = sides.prod(-1)
        within = (corners[..., 2:].clip(0, 1) - corners[..., :2].clip(0, 1)).prod(-1)
        inside = within / area  # NaN where there is no box
        large = (sides > MOST_SIDE).any(axis=-1)
        beyond = (inside < LEAST_INSIDE) | large
        if not beyond.any():
            return None
        of_those = np.where(beyond, inside, np.inf)
        shown = [frame for frame in np.argsort(of_those.min(axis=1), kind="stable") if beyond[frame].any()]
        frame, track = shown[0], int(of_those[shown[0]].argmin())
        assert seen.info is not None
        box = ", ".join(f"{value:.4g}" for value in seen.tracks.boxes[frame, track])
        num_wholly, num_large = int((inside <= 0).sum()), int(large.sum())
        larger = f", {num_large} much larger than it" if num_large else ""
        text = (
            f"{int(beyond.sum())} of {int(np.isfinite(area).sum())} boxes, {num_wholly} of them wholly{larger}; frame "
            f"{seen.tracks.frames[frame] + 1}: ({box}) in a picture of {seen.info.width} × {seen.info.height}"
        )
        return Finding(
            text=text,
            severity=Severity.WRONG if num_wholly or num_large else Severity.NOTE,
            amount=float(beyond.sum()),
            frames=tuple(int(seen.tracks.frames[place]) for place in shown[:4]),
        )
