"""Clip number → what the checks find in it, as worker processes are asked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from ifcar.errors import InputError
from ifcar.extract.backbones.spec import Reads
from ifcar.extract.frame_times import past_end
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.tracks import Tracks
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.data_check.contract import Check, Finding, Seen
from ifcar.pipelines.extraction.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """What is kept of a clip; a few hundred bytes, whatever its length.

    Args:
        number: its place among the clips.
        findings: by the names of the checks.
        source: what its pixels are read from; None where no pixels are read.
        size: (width, height) of its pictures; None where they cannot be read.
        fps: of its source's own times; None: unknown, as of a folder.
        stated_fps: of its source's header.
        num_frames: of its source; 0 where it cannot be read.
        num_annotated: frames that are annotated, of a file of boxes those that it lists.
        num_tracks: M.
        num_boxes: over all frames.
    """

    number: int
    findings: Mapping[str, Finding]
    source: Path | None
    size: tuple[int, int] | None
    fps: float | None
    stated_fps: float | None
    num_frames: int
    num_annotated: int
    num_tracks: int
    num_boxes: int


class Examiner(Dataset[Examined]):
    """Shows each clip to all checks, through the views that extraction decodes.

    Args:
        source: the data set, read.
        policy: how views are sampled; the first view of a clip is decoded.
        reads: what is read of it, "pixels" or "nothing".
        checks: by their names.
    """

    def __init__(self, source: Source, policy: ViewPolicy, reads: Reads, checks: Mapping[str, Check]) -> None:
        self.source, self.checks = source, checks
        self.reads_pixels = reads != "nothing"
        self.views = source.views(policy, reads)

    def __getitem__(self, number: int) -> Examined:
        seen = self.seen(number)
        found = {name: finding for name, check in self.checks.items() if (finding := check.look(seen)) is not None}
        info = seen.info
        return Examined(
            number=number,
            findings=found,
            source=seen.source,
            size=None if info is None else (info.width, info.height),
            fps=None if info is None else info.fps,
            stated_fps=None if info is None else info.stated_fps,
            num_frames=0 if info is None else info.num_frames,
            num_annotated=len(seen.tracks.frames),
            num_tracks=seen.tracks.boxes.shape[1],
            num_boxes=int(seen.has_box().sum()),
        )

    def seen(self, number: int) -> Seen:
        """Return a clip as extraction reads it: its first view is decoded, and its pixels let go."""
        clip = self.source.clips[number]
        decoded = self.views[number * self.views.policy.rows_per_clip]
        tracks, info = self._tracks(self.source.tracks, clip.clip_id), self._info(number)
        fps, past = self.source.tracks_fps, decoded.note
        if self.source.proposals is not None and info is not None and not past:
            past = past_end(None, tracks, info, fps, clip.origin_sec)
        return Seen(
            number=number,
            clip=clip,
            source=clip.source if self.reads_pixels else None,
            tracks=tracks,
            tracks_fps=fps,
            info=info,
            annotated=self._tracks(self.source.dataset.tracks, clip.clip_id).frames,
            annotation_fps=self.source.dataset.annotation_fps,
            failure=decoded.failure,
            past_end=past,
        )

    def sampled(self, number: int) -> Sequence[int]:
        """Return the frames of the source that a clip's first view shows; none where it cannot be read."""
        try:
            view = self.views.plan(number * self.views.policy.rows_per_clip)
        except (InputError, OSError):
            return []
        return [int(frame) for frame in view.frame_indices]

    def _tracks(self, read: Callable[[str], Tracks], clip_id: str) -> Tracks:
        try:
            return read(clip_id)
        except (InputError, OSError):  # the view failed for this reason, which it says
            return Tracks.none()

    def _info(self, number: int) -> VideoInfo | None:
        try:
            return self.views.info(self.source.clips[number])
        except (InputError, OSError):  # the same
            return None
