"""Trained heads of a table, run again on a few test clips to see what they look at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from ifcar.errors import IfcarError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head, InstanceBatch
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.views import CachedViews
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.heads import trained_head
from ifcar.pipelines.runs.resolve import head_arrays


@dataclass(frozen=True, kw_only=True)
class TrainedHead:
    """A system's head with the weights of its first run.

    Args:
        system: the system's name.
        run: the run.
        head: in evaluation mode, on the CPU.
        reads: names of the arrays that it reads.
    """

    system: str
    run: Run
    head: Head
    reads: Sequence[str]

    def batch(self, views: CachedViews, clip_ids: Sequence[str]) -> InstanceBatch:
        """Return what the head reads of these clips' cached views."""
        return views.batch(self.reads, clip_ids)

    def explain(self, views: CachedViews, clip_id: str) -> dict[str, Tensor]:
        """Return what the head says it looks at in a clip, by name."""
        return {name: value[0] for name, value in self.head.explain(self.batch(views, [clip_id])).items()}


def load_first(chapter: Chapter, views: CachedViews, names: Collection[str]) -> TrainedHead | None:
    """Load the first run of the first system whose head gives one of these explanations: A, B, then the others.

    Returns:
        None when no system has it, or its weights cannot be read.
    """
    systems = [system for _, system in chapter.pair()]
    systems += [system for system in chapter.systems if system not in systems]
    for system in systems:
        run = system.runs()[0]
        if not isinstance(run.config, RunConfig) or not explains(run.config.head):
            continue
        try:
            spec, num_classes = views.reader.spec_of(run.config.protocol), len(run.data().classes)
            head = trained_head(run.config, run.path, spec, num_classes)
        except (IfcarError, OSError):
            continue
        trained = TrainedHead(system=system.name, run=run, head=head, reads=head_arrays(run.config))
        if views.rows and {*names} & {*trained.explain(views, next(iter(views.rows)))}:
            return trained
    return None


def explains(head: str) -> bool:
    """Return whether a head of this name has anything to show."""
    return head in HEADS.names() and HEADS.get(head).explain is not Head.explain


def spread(places: Sequence[int], num: int) -> list[int]:
    """Return `num` of these, or all where there are fewer, at even distances."""
    count = min(num, len(places))
    return [places[(2 * k + 1) * len(places) // (2 * count)] for k in range(count)]
