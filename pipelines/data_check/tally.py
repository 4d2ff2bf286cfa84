"""What was found in all clips: counts, and the worst clips of each check. Memory does not grow with the clips."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ifcar.pipelines.data_check.contract import Check, Finding, Severity
from ifcar.pipelines.data_check.examine import Examined

MOST_EXAMPLES = 30
MOST_KINDS = 1000
"""Sizes and rates of sources that are told apart; any further one counts as another."""

Kind = tuple[tuple[int, int] | None, float | None, float | None]
"""Of sources: (width, height), frames per second by their own times, and as stated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a check found in a data set.

    Args:
        check: its name.
        title: what was found.
        meaning: what extraction makes of it.
        remedy: what to do.
        counts: clips by severity, the worst first; no clip, no entry.
        examples: (clip number, finding), the worst first, at most `MOST_EXAMPLES`.
    """

    check: str
    title: str
    meaning: str
    remedy: str
    counts: Mapping[Severity, int]
    examples: Sequence[tuple[int, Finding]]

    @property
    def num_clips(self) -> int:
        """Clips in which something was found."""
        return sum(self.counts.values())

    @property
    def severity(self) -> Severity:
        """That of the worst finding; of the least where there is none."""
        return max(self.counts, default=Severity.NOTE)


class Tally:
    """Counts what is found, clip by clip in their order.

    Args:
        checks: by their names.

    Attributes:
        num_clips: clips that were counted.
        num_boxes: in all of their annotated frames.
        num_annotated: annotated frames.
        num_frames: frames of their sources, those of a source once for each of its clips.
        kinds: clips by size and rate of their source.
        tracks: clips by number of tracks.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._counts: dict[str, Counter[Severity]] = {name: Counter() for name in checks}
        self._worst: dict[str, list[tuple[Severity, float, int, Finding]]] = {name: [] for name in checks}
        self.num_clips = self.num_boxes = self.num_annotated = self.num_frames = 0
        self.kinds: Counter[Kind | None] = Counter()
        self.tracks: Counter[int] = Counter()

    def add(self, examined: Examined) -> None:
        """Count a clip."""
        self.num_clips += 1
        self.num_boxes += examined.num_boxes
        self.num_annotated += examined.num_annotated
        self.num_frames += examined.num_frames
        self.tracks[examined.num_tracks] += 1
        kind: Kind = (examined.size, _rounded(examined.fps), _rounded(examined.stated_fps))
        self.kinds[kind if kind in self.kinds or len(self.kinds) < MOST_KINDS else None] += 1
        for name, raw in examined.findings.items():
            finding = self._checks[name].confirm(examined.number, raw)
            if finding is not None:
                self._counts[name][finding.severity] += 1
                self._keep(self._worst[name], (finding.severity, finding.amount, -examined.number, finding))

    def _keep(
        self, worst: list[tuple[Severity, float, int, Finding]], item: tuple[Severity, float, int, Finding]
    ) -> None:
        """Keep an example among the worst; a clip's number tells it from any other, so that findings never compare."""
        if len(worst) < MOST_EXAMPLES:
            heapq.heappush(worst, item)
        else:
            heapq.heappushpop(worst, item)

    def found(self) -> list[Found]:
        """Return what each check found, the worst first, checks that found nothing last."""
        all_found = [
            Found(
                check=name,
                title=check.title,
                meaning=check.meaning,
                remedy=check.remedy,
                counts={
                    severity: n for severity in sorted(Severity, reverse=True) if (n := self._counts[name][severity])
                },
                examples=[(-place, finding) for _, _, place, finding in sorted(self._worst[name], reverse=True)],
            )
            for name, check in self._checks.items()
        ]
        return sorted(
            all_found, key=lambda found: (not found.num_clips, -found.severity, -found.num_clips, found.check)
        )


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 2)


def worst_clips(found: Sequence[Found], count: int) -> list[int]:
    """Return the numbers of the clips to draw: of each check its worst, in turn, the worst check first."""
    chosen: dict[int, None] = {}
    for place in range(MOST_EXAMPLES):
        for own in found:
            if place < len(own.examples) and len(chosen) < count:
                chosen.setdefault(own.examples[place][0])
    return list(chosen)
