"""What clips are read from: files and folders, whether they are whole, and each there once."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.extract.frame_folder import frame_files
from ifcar.extract.limits import DecodeError
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check
from ifcar.pipelines.extraction.sources import Source

_SHOWN = 5
_PART_BYTES = 1 << 20
_NUM_PARTS = 3


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
        text = f"{count_of(count, 'is', of=frames)} not there: {listed}"
        return Finding(text=text, severity=Severity.FAILS, amount=count)


@register_check
class DoubledSource(Check):
    """Two clips whose sources hold the same bytes."""

    name = "doubled-source"
    title = "The same source under two names"
    meaning = (
        "Two files or folders have the same content: as many bytes, or pictures, with the same beginning, middle and "
        "end. Where one clip is trained on and the other tested on, the score is of what was seen in training."
    )
    remedy = "Take one of the two out of the lists, or fetch the one that is not what its name says."
    needs_pixels = True

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._first: dict[str, int] = {}
        self._last: tuple[Path | None, str] = (None, "")

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`; clips that share a source follow each other, so that it is read once."""
        if seen.source is None:
            return None
        if self._last[0] != seen.source:
            self._last = seen.source, content_digest(seen.source)
        return Finding(text="", severity=Severity.NOTE, key=self._last[1]) if self._last[1] else None

    def confirm(self, number: int, finding: Finding) -> Finding | None:
        """See `Check`."""
        first = self._first.setdefault(finding.key, number)
        one, other = self.source.clips[first], self.source.clips[number]
        if one.source == other.source:
            return None
        leaking = self._leaking(first, number)
        between = f", trained on and tested on in protocol {', '.join(leaking)}" if leaking else ""
        return Finding(
            text=f"the same as clip {one.clip_id!r}, {one.source}{between}",
            severity=Severity.WRONG if leaking else Severity.NOTE,
        )

    def _leaking(self, first: int, number: int) -> Sequence[str]:
        parts = {Split.TRAIN, Split.TEST}
        places = [first, number]
        return [p.name for p in self.source.protocols if {Split(int(part)) for part in p.split[places]} == parts]


def content_digest(source: Path) -> str:
    """Return a digest of how large a source is, and of its beginning, middle and end; empty where there is nothing.

    Args:
        source: a video file, of which three parts of 1 MiB are read; or a folder of frames, of which three pictures.
    """
    try:
        if source.is_dir():
            files = [path for _, path in sorted(frame_files(source).items())]
            chosen = [files[place * (len(files) - 1) // (_NUM_PARTS - 1)] for place in range(_NUM_PARTS)]
            parts, size = [path.read_bytes() for path in chosen], len(files)
        else:
            size = source.stat().st_size
            with source.open("rb") as file:
                parts = []
                for place in range(_NUM_PARTS):
                    file.seek(max(0, (size - _PART_BYTES) * place // (_NUM_PARTS - 1)))
                    parts.append(file.read(_PART_BYTES))
    except (DecodeError, OSError):
        return ""
    if not size:
        return ""
    digest = hashlib.sha256(f"{'pictures' if source.is_dir() else 'bytes'} {size}\n".encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
