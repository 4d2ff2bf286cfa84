"""Boxes in shares of the picture where pixels are meant."""

from __future__ import annotations

import numpy as np

from ifcar.extract.datasets.box_notes import SHARES, in_shares
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check

_UNIT_PICTURE = (1, 1)
"""The size that clips have whose boxes are meant as shares, as their pixels are not read."""


@register_check
class InShares(Check):
    """Every corner of a clip is as small as a share."""

    name = "boxes-in-shares"
    title = "Boxes in shares of the picture, read as pixels"
    meaning = "Every box of the clip is smaller than a pixel in the picture's upper left corner."
    remedy = "Multiply the corners by the picture's width and height."

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        if (
            seen.info is None
            or (seen.info.width, seen.info.height) == _UNIT_PICTURE
            or not in_shares(seen.tracks.boxes)
        ):
            return None
        low, high = np.nanmin(seen.tracks.boxes), np.nanmax(seen.tracks.boxes)
        text = f"corners from {low:.3g} to {high:.3g}, none outside {SHARES[0]:g} to {SHARES[1]:g}"
        return Finding(text=text, severity=Severity.WRONG)
