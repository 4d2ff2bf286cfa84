"""Tracks whose box is elsewhere one frame later."""

from __future__ import annotations

import numpy as np

from ifcar.counts import count_of
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check

MOST_STEP = 1.25
"""Diagonals of the larger box, which its centre may move from one frame to the next."""


@register_check
class Jumps(Check):
    """A track goes on with the box of something else."""

    name = "jumps"
    title = "Tracks that jump"
    meaning = (
        f"From one annotated frame to the next a box moves by more than {MOST_STEP:g} of its own diagonal, as where "
        "one name is given to two things in turn. Heads take both for one instance. Frames with others between them, "
        "and slots that hold detections without tracks, are not looked at."
    )
    remedy = "Give the two things names of their own, or link them anew."

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        tracks = seen.tracks
        if tracks.categories.ndim > 1 or len(tracks.frames) < 2:
            return None
        boxes = tracks.boxes.astype(np.float64)
        centres, diagonals = (
            (boxes[..., :2] + boxes[..., 2:]) / 2,
            np.linalg.norm(boxes[..., 2:] - boxes[..., :2], axis=-1),
        )
        steps = np.linalg.norm(np.diff(centres, axis=0), axis=-1) / np.maximum(diagonals[1:], diagonals[:-1])
        steps[np.diff(tracks.frames) != 1] = np.nan
        places = np.argwhere(steps > MOST_STEP)
        if not len(places):
            return None
        places = places[np.argsort(-steps[steps > MOST_STEP], kind="stable")]
        frame, track = places[0]
        before, after = centres[frame, track], centres[frame + 1, track]
        text = (
            f"{count_of(len(places), 'jump')}; track {track} from ({before[0]:.0f}, "
            f"{before[1]:.0f}) in frame {tracks.frames[frame] + 1} to ({after[0]:.0f}, {after[1]:.0f}) in the next, "
            f"{steps[frame, track]:.1f} diagonals of its box"
        )
        shown = [int(tracks.frames[place + later]) for place, _ in places[:2] for later in (0, 1)]
        return Finding(text=text, severity=Severity.NOTE, amount=float(len(places)), frames=tuple(shown))
