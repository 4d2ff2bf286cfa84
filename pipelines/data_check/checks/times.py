"""Where annotations and sources are of other lengths or rates."""

from __future__ import annotations

from ifcar.counts import count_of
from ifcar.extract.frame_times import frames_per_annotation, source_frames
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check

_MUCH_LONGER = 4 / 3
_USUAL_FPS = (24.0, 25.0, 30.0, 50.0, 60.0)
_SAME_SHARE = 0.03
_LEAST_FRAMES = 24  # from which on a count tells one rate from another
_STATED_SHARE = 0.02  # by which a header's rate may be off
_LEAST_EQUAL = 8  # from which on equal counts are no accident


@register_check
class PastEnd(Check):
    """More is annotated than there are pictures."""

    name = "past-end"
    title = "More annotated than there are pictures"
    meaning = (
        "What lies past the source's end is not seen, and what is there is taken for the whole clip: the source is cut "
        "short, of another cut, or counts frames at another rate."
    )
    remedy = "Fetch the source again, or cut it as the annotations expect."
    needs_pixels = True

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        return Finding(text=seen.past_end, severity=Severity.WRONG) if seen.past_end else None


@register_check
class EndsEarly(Check):
    """The source goes on where a clip, whose span is that of its annotations, has ended."""

    name = "ends-early"
    title = "Annotations that end before their source"
    meaning = (
        "The clip ends with its last annotated frame, and the rest of the source is not seen. A folder that holds as "
        "many pictures as its annotated stretch has at a usual rate was cut at that rate, while the annotations count "
        "at another: then boxes and pictures are of different moments."
    )
    remedy = "Cut the frames again at the annotations' rate, or check that the rest is not part of the action."
    needs_pixels = True

    def look(self, seen: Seen) -> Finding | None:
        """See `Check`."""
        info, fps, annotated = seen.info, seen.annotation_fps, seen.annotated
        if info is None or seen.clip.span_sec is not None or not len(annotated):
            return None
        last = int(source_frames(info, fps, annotated[-1:], seen.clip.origin_sec)[0]) + 1
        if last <= 0 or info.num_frames < _MUCH_LONGER * last:
            return None
        text = f"{count_of(last, 'is', of=f'{info.num_frames} pictures')} within the annotations"
        severity = Severity.NOTE
        if fps is not None and info.fps is None and last >= _LEAST_FRAMES:
            rates = [rate for rate in _USUAL_FPS if abs(info.num_frames / last / (rate / fps) - 1) < _SAME_SHARE]
            if rates:
                severity = Severity.WRONG
                text += f", as if the folder were cut at {rates[0]:g} a second; annotations count at {fps:g}"
        return Finding(text=text, severity=severity, amount=info.num_frames / last)


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
            if counts and info.num_frames >= _LEAST_EQUAL:
                text = (
                    f"annotated up to frame {annotated[-1] + 1}, as many as the source has ({info.num_frames}), but "
                    f"they count at {fps:g} a second and it shows {info.fps:.4g}"
                )
                return Finding(text=text, severity=Severity.WRONG)
        if info.stated_fps is not None and abs(info.stated_fps / info.fps - 1) > _STATED_SHARE:
            text = f"the header states {info.stated_fps:.4g} a second, the time stamps {info.fps:.4g}"
            return Finding(text=text, severity=Severity.NOTE, amount=abs(info.stated_fps / info.fps - 1))
        return None
