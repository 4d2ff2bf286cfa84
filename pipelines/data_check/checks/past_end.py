"""Clips that reach past the end of their source."""

from __future__ import annotations

from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check


@register_check
class PastEnd(Check):
    """More is annotated than there are pictures."""

    name = "past-end"
    title = "More annotated than there are pictures"
    meaning = (
        "What lies past the source's end is not seen, and what is there is taken for the whole clip: the source is cut "
        "short, of another cut, or counts frames at another rate."
    )
    remedy = "Fetch the source again, or cut it as the annotations expect."
    needs_pixels = True

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        return Finding(text=seen.past_end, severity=Severity.WRONG) if seen.past_end else None
