"""Folders of frames with gaps in their numbers."""

from __future__ import annotations

import itertools

from ifcar.counts import count_of
from ifcar.extract.frame_folder import frame_files
from ifcar.extract.limits import DecodeError
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check

_SHOWN = 5


@register_check
class MissingFrames(Check):
    """Numbers between 1 and the highest that no picture has."""

    name = "missing-frames"
    title = "Folders that lack frames"
    meaning = "A view that samples a missing frame fails; what other views of the clip see stays right."
    remedy = "Unpack or cut the frames of these videos again."
    needs_pixels = True

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        if seen.source is None or not seen.source.is_dir():
            return None
        try:
            numbers = frame_files(seen.source)
        except DecodeError:
            return None
        # A folder may hold a stretch of a longer video under its own numbers.
        missing = (number for number in range(min(numbers), max(numbers)) if number not in numbers)
        first = list(itertools.islice(missing, _SHOWN))
        if not first:
            return None
        count = max(numbers) - min(numbers) + 1 - len(numbers)
        listed = ", ".join(map(str, first)) + (", …" if count > len(first) else "")
        frames = f"{max(numbers) - min(numbers) + 1} frames"
        text = f"{count_of(count, 'is', 'are', of=frames)} not there: {listed}"
        return Finding(text=text, severity=Severity.FAILS, amount=count)
