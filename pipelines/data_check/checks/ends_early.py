"""Annotations that end long before their source does."""

from __future__ import annotations

from ifcar.counts import count_of
from ifcar.extract.frame_times import source_frames
from ifcar.pipelines.data_check.contract import Check, Finding, Seen, Severity, register_check

_MUCH_LONGER = 4 / 3
_USUAL_FPS = (24.0, 25.0, 30.0, 50.0, 60.0)
_SAME_SHARE = 0.03
_LEAST_FRAMES = 24  # from which on a count tells one rate from another


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
        text = f"{count_of(last, 'is', 'are', of=f'{info.num_frames} pictures')} within the annotations"
        severity = Severity.NOTE
        if fps is not None and info.fps is None and last >= _LEAST_FRAMES:
            rates = [rate for rate in _USUAL_FPS if abs(info.num_frames / last / (rate / fps) - 1) < _SAME_SHARE]
            if rates:
                severity = Severity.WRONG
                text += f", as if the folder were cut at {rates[0]:g} a second; annotations count at {fps:g}"
        return Finding(text=text, severity=severity, amount=info.num_frames / last)
