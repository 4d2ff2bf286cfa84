"""Files of 0 bytes, and folders without a picture."""

from __future__ import annotations

from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check


@register_check
class EmptySource(Check):
    """There is a source, and nothing in it."""

    name = "empty-source"
    title = "Empty files and folders"
    meaning = "The clip has a file of 0 bytes, or a folder without a picture; extraction fails it."
    remedy = "Download or unpack these again: an interrupted run leaves such files."
    needs_pixels = True

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        return Finding(text=str(seen.source), severity=Severity.FAILS) if seen.is_empty() else None
