"""Pictures of another size than the annotations state."""

from __future__ import annotations

from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check


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
