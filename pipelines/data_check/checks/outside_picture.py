"""Boxes that lie beyond the picture."""

from __future__ import annotations

import warnings

import numpy as np

from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check

LEAST_INSIDE = 0.1
"""Of a box's area, what has to be in the picture; objects that leave it have boxes that reach past its border."""


@register_check
class OutsidePicture(Check):
    """Next to nothing of a box is in the picture."""

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
        area = (corners[..., 2:] - corners[..., :2]).prod(-1)
        within = (corners[..., 2:].clip(0, 1) - corners[..., :2].clip(0, 1)).prod(-1)
        inside = within / area  # NaN where there is no box
        beyond = inside < LEAST_INSIDE
        if not beyond.any():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # frames without a box
            least = np.nanmin(inside, axis=1)
        shown = [frame for frame in np.argsort(least, kind="stable") if beyond[frame].any()]
        frame, track = shown[0], int(np.nanargmin(inside[shown[0]]))
        assert seen.info is not None
        box = ", ".join(f"{value:.4g}" for value in seen.tracks.boxes[frame, track])
        wholly = int((inside <= 0).sum())
        text = (
            f"{int(beyond.sum())} of {int(np.isfinite(area).sum())} boxes, {wholly} of them wholly; frame "
            f"{seen.tracks.frames[frame] + 1}: ({box}) in a picture of {seen.info.width} × {seen.info.height}"
        )
        return Finding(
            text=text,
            severity=Severity.WRONG if wholly else Severity.NOTE,
            amount=float(beyond.sum()),
            frames=tuple(int(seen.tracks.frames[place]) for place in shown[:4]),
        )
