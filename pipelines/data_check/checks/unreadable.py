"""Clips that extraction would fail."""

from __future__ import annotations

from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check


@register_check
class Unreadable(Check):
    """The frames or the boxes of a view cannot be read."""

    name = "unreadable"
    title = "Clips that cannot be read"
    meaning = "Extraction fails these clips with the reason given here, and goes on without them."
    remedy = "Fetch the file again, or mend what the reason names; then check again."

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        if not seen.failure or seen.is_empty():
            return None
        return Finding(text=seen.failure, severity=Severity.FAILS)
