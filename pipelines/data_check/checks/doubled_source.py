"""Sources that are there twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ifcar.cache.schema import Split
from ifcar.extract.frame_folder import frame_files
from ifcar.extract.limits import DecodeError
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check
from ifcar.pipelines.extraction.sources import Source

_PART_BYTES = 1 << 20
_NUM_PARTS = 3


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
