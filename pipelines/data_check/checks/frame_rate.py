"""Frame rates as stated, and as the frames' own times tell."""

from __future__ import annotations

from ifcar.extract.frame_times import frames_per_annotation
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check

_STATED_SHARE = 0.02  # by which a header's rate may be off
_LEAST_FRAMES = 8  # from which on equal counts are no accident


@register_check
class FrameRate(Check):
    """A rate that is not what it says, or not what the annotations count in."""

    name = "frame-rate"
    title = "Frame rates other than stated"
    meaning = (
        "The frames' own times count, never the rate in a file's header. Annotated frames meet those of a source of "
        "another rate by time: where they are as many as the source's frames all the same, they probably count these, "
        "and boxes land on pictures of other moments."
    )
    remedy = "Bring the video to the rate that its annotations count in, or count them in its own frames."
    needs_pixels = True

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        info = seen.info
        if info is None or info.fps is None:
            return None
        counted = ((seen.annotation_fps, seen.annotated), (seen.tracks_fps, seen.tracks.frames))
        for fps, annotated in counted:
            if fps is None or seen.clip.frames_on_clock or frames_per_annotation(info, fps) == 1:
                continue
            counts = len(annotated) and abs(int(annotated[-1]) + 1 - info.num_frames) <= 1
            if counts and info.num_frames >= _LEAST_FRAMES:
                text = (
                    f"annotated up to frame {annotated[-1] + 1}, as many as the source has ({info.num_frames}), but "
                    f"they count at {fps:g} a second and it shows {info.fps:.4g}"
                )
                return Finding(text=text, severity=Severity.WRONG)
        if info.stated_fps is not None and abs(info.stated_fps / info.fps - 1) > _STATED_SHARE:
            text = f"the header states {info.stated_fps:.4g} a second, the time stamps {info.fps:.4g}"
            return Finding(text=text, severity=Severity.NOTE, amount=abs(info.stated_fps / info.fps - 1))
        return None
