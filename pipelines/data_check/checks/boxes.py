"""Boxes that are none, of another unit or size, beyond the picture, or of something else one frame later."""

from __future__ import annotations

import numpy as np

from ifcar.counts import count_of
from ifcar.extract.datasets.box_notes import SHARES, in_shares
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check
from ifcar.pipelines.extraction.sources import Source

_UNIT_PICTURE = (1, 1)
"""The size that clips have whose boxes are meant as shares, as their pixels are not read."""
LEAST_INSIDE = 0.1
"""Of a box's area, what has to be in the picture; objects that leave it have boxes that reach past its border."""
MOST_SIDE = 1.5
"""Sides of the picture, which those of a box have at most."""
MOST_STEP = 1.25
"""Diagonals of the larger box, which its centre may move from one frame to the next."""


@register_check
class WithoutBoxes(Check):
    """Nothing is annotated in a clip of a data set with boxes."""

    name = "without-boxes"
    title = "Clips without a box"
    meaning = "Heads that read instances see empty slots alone in these clips."
    remedy = "Annotate them, take boxes of a detector (ifcar extract --boxes FILE), or leave the clips out."

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        # A file of boxes of which no box is one, as with corners in another order, means boxes too.
        self._expected = source.proposals is not None or any(source.num_tracks(clip.clip_id) for clip in source.clips)

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        if not self._expected or seen.failure or seen.has_box().any():
            return None
        return Finding(text=f"{len(seen.tracks.frames)} annotated frames, no box in any", severity=Severity.NOTE)


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


@register_check
class StatedSize(Check):
    """The annotations give a size that the pictures do not have."""

    name = "stated-size"
    title = "Pictures of another size than stated"
    meaning = (
        "Boxes are read as pixels of the pictures. Those drawn at the stated size are then too large or too small, "
        "and shifted."
    )
    remedy = "Take the pictures at the size that the boxes were drawn at, or scale the boxes and correct the list."
    needs_pixels = True

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        stated, info = seen.clip.frame_size, seen.info
        if stated is None or info is None or stated == (info.width, info.height):
            return None
        text = f"stated {stated[0]} × {stated[1]}, the pictures are {info.width} × {info.height}"
        return Finding(text=text, severity=Severity.WRONG if seen.has_box().any() else Severity.NOTE)


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
