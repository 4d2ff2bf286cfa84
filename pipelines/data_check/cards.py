"""Pictures of clips with the boxes as they are annotated, and what was found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ifcar.errors import InputError
from ifcar.extract.decode import cut_frames, open_source
from ifcar.extract.frame_times import annotated_frames, source_frames
from ifcar.extract.geometry import FULL_FRAME
from ifcar.pipelines.data_check.contract import Finding, Seen, Severity
from ifcar.pipelines.data_check.examine import Examiner
from ifcar.pipelines.data_check.tally import Found
from ifcar.pipelines.report.strips import MOST_FRAMES, Strip, cell_height, lay_out

MARGINS = (0.25, 0.5, 1.0)
"""Of the picture's sides, what is shown around it where boxes reach past its border: the least that holds them all."""
_MOST_OF_FINDINGS = 4
_SIDE = 320


@dataclass(frozen=True, kw_only=True)
class ClipCard:
    """One clip on the page.

    Args:
        clip_id: its id.
        source: what its pixels are read from, or empty.
        findings: (severity, title of the check, text).
        strip: its picture; None where nothing is known that could be drawn.
        without_pixels: why boxes alone are drawn, or empty.
    """

    clip_id: str
    source: str
    findings: Sequence[tuple[Severity, str, str]]
    strip: Strip | None
    without_pixels: str


def make_card(examiner: Examiner, number: int, found: Sequence[Found]) -> ClipCard:
    """Return a clip's card."""
    own = [(check.title, finding) for check in found for place, finding in check.examples if place == number]
    seen = examiner.seen(number)
    strip, without_pixels = _strip(examiner, seen, [finding for _, finding in own])
    return ClipCard(
        clip_id=seen.clip.clip_id,
        source="" if seen.source is None else str(seen.source),
        findings=[(finding.severity, title, finding.text) for title, finding in own],
        strip=strip,
        without_pixels=without_pixels,
    )


def _strip(examiner: Examiner, seen: Seen, findings: Sequence[Finding]) -> tuple[Strip | None, str]:
    """Return the frames that show what was found, filled up with those that extraction samples, and their boxes."""
    if seen.info is None:
        return None, seen.failure
    fps, origin_sec = seen.tracks_fps, seen.clip.origin_sec
    telling = np.array([frame for finding in findings for frame in finding.frames][:_MOST_OF_FINDINGS], np.int64)
    wanted = source_frames(seen.info, fps, telling, origin_sec)
    chosen = dict.fromkeys(int(frame) for frame in wanted if 0 <= frame < seen.info.num_frames)
    sampled = [frame for frame in dict.fromkeys(examiner.sampled(seen.number)) if frame not in chosen]
    free = MOST_FRAMES - len(chosen)
    places = np.unique(np.linspace(0, len(sampled) - 1, min(free, len(sampled))).round().astype(int))
    frames = np.array(sorted([*chosen, *(sampled[place] for place in places)]), np.int64)
    if not len(frames):
        return None, seen.failure
    shown = seen.tracks.at(annotated_frames(seen.info, fps, frames, origin_sec))
    sides = np.array((seen.info.width, seen.info.height) * 2)
    corners = shown.boxes / sides
    present = np.isfinite(corners[..., 0])
    margin = _margin(corners)
    corners = corners.clip(-margin, 1 + margin)
    centred = np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], axis=-1)
    categories = np.where(present, np.broadcast_to(shown.categories, present.shape), 0).astype(np.uint8)
    pixels, why = _pixels(seen, frames.tolist())
    strip = lay_out(
        [int(frame) + 1 for frame in frames],
        centred.astype(np.float32),
        categories,
        pixels,
        cell_height(seen.info.width, seen.info.height),
        margin=margin,
    )
    return strip, why


def _margin(corners: NDArray[np.float64]) -> float:
    beyond = float(np.maximum(-corners, corners - 1).max(initial=0.0, where=np.isfinite(corners)))
    return next((margin for margin in MARGINS if beyond <= margin), MARGINS[-1]) if beyond > 0 else 0.0


def _pixels(seen: Seen, frames: Sequence[int]) -> tuple[list[Image.Image] | None, str]:
    """Return the pictures of frames, or None and why there are none."""
    if seen.source is None:
        return None, "no pixels are read"
    try:
        with open_source(seen.source) as source:
            squares = cut_frames(source, frames, FULL_FRAME, _SIDE, False)
    except (InputError, OSError) as error:
        return None, str(error)
    return [Image.fromarray(square) for square in squares], ""
