"""Clips without a box, where others have some."""

from __future__ import annotations

from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check
from ifcar.pipelines.extraction.sources import Source


@register_check
class WithoutBoxes(Check):
    """Nothing is annotated in a clip of a data set with boxes."""

    name = "without-boxes"
    title = "Clips without a box"
    meaning = "Heads that read instances see empty slots alone in these clips."
    remedy = "Annotate them, take boxes of a detector (ifcar extract --boxes FILE), or leave the clips out."

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._expected = any(source.num_tracks(clip.clip_id) for clip in source.clips)

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        if not self._expected or seen.failure or seen.has_box().any():
            return None
        return Finding(text=f"{len(seen.tracks.frames)} annotated frames, no box in any", severity=Severity.NOTE)
