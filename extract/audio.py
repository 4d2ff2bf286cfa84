"""Sound of a file, on the clock that its pictures are on: mono, 16,000 samples a second.

Samples lie where their time stamps say, so that a track that begins late is heard late; what no sample covers is 0.
Time stamps are rounded (Matroska: to milliseconds), so samples follow one another without a gap for as long as the
stamps stay near to their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import av
import numpy as np
from numpy.typing import NDArray

from ifcar.extract.container import has_zero, open_container, reading
from ifcar.extract.limits import DecodeError

SAMPLE_RATE: Final = 16_000
_RUN_UP_SEC = 1.0  # decoded before what is asked for: codecs and the resampler need some
_RUN_ON_SEC = 0.1  # decoded after it, for the resampler
_MOST_DRIFT_SEC = 0.01  # of a time stamp from the samples counted so far; beyond it a new run begins
Run = tuple[int, NDArray[np.float32]]
"""Samples that follow one another, and the number of the first of them, counted from second 0 of the clock."""


class Sound:
    """The first sound track of a file; a context manager that closes it.

    Raises:
        DecodeError: missing, empty or damaged file, a folder of frames, or a file without sound.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise DecodeError(
                f"{path}: a folder of frames, which has no sound; expected a video file with a sound track"
            )
        self._container: Any = open_container(path)
        self._stream: Any = self._track()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _track(self) -> Any:
        streams = self._container.streams
        if not streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in streams})) or "no"
            self._container.close()
            raise DecodeError(f"{self.path}: {kinds} streams only; expected a sound track, which the backbone reads")
        streams.audio[0].thread_type = "NONE"
        return streams.audio[0]

    def read(self, first: int, count: int) -> NDArray[np.float32]:
        """Return samples of the clock.

        Args:
            first: number of the first sample, at second `first` / 16,000; before second 0 where it is negative.
            count: how many.

        Returns:
            (count,) float32 in [−1, 1], 0 where there is no sound.

        Raises:
            DecodeError: the track is damaged.
        """
        heard = np.zeros(count, np.float32)
        with reading(self.path):
            for start, samples in self._runs(first / SAMPLE_RATE, (first + count) / SAMPLE_RATE):
                low, high = max(first, start), min(first + count, start + len(samples))
                if low < high:
                    heard[low - first : high - first] = samples[low - start : high - start]
        return heard

    def _runs(self, start_sec: float, stop_sec: float) -> Iterator[Run]:
        """Yield the runs of sound that reach into a span, and perhaps more around it."""
        resampler, place, begin, parts = None, 0.0, 0, list[NDArray[np.float32]]()
        for shown_sec, frame in self._frames(start_sec):
            if shown_sec >= stop_sec + _RUN_ON_SEC:
                break
            if resampler is None or abs(shown_sec - place) > _MOST_DRIFT_SEC:
                if resampler is not None:
                    yield begin, np.concatenate([*parts, *_resampled(resampler, None)])
                resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=SAMPLE_RATE)
                place, begin, parts = shown_sec, round(shown_sec * SAMPLE_RATE), []
            place += frame.samples / frame.sample_rate
            frame.pts = None
            parts += _resampled(resampler, frame)
        if resampler is not None:
            yield begin, np.concatenate([*parts, *_resampled(resampler, None)])

    def _frames(self, start_sec: float) -> Iterator[tuple[float, Any]]:
        """Yield (second, frame) from a little before a second on; from the track's start where a seek lands behind."""
        begin_sec = max(0.0, start_sec - _RUN_UP_SEC)
        sought = begin_sec > 0 and self._sought(begin_sec)
        if not sought:
            self._restart()
        place = 0.0
        frames = self._decoded()
        while (frame := next(frames, None)) is not None:
            shown_sec = place if frame.pts is None else float(frame.pts * frame.time_base) - self._zero_sec()
            if sought and (shown_sec > begin_sec or frame.pts is None):
                self._restart()
                sought, frames = False, self._decoded()
                continue
            sought, place = False, shown_sec + frame.samples / frame.sample_rate
            if place > begin_sec:
                yield shown_sec, frame

    def _decoded(self) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            yield from packet.decode()

    def _sought(self, second: float) -> bool:
        """Go to before a second; return whether that was possible."""
        try:
            stamp = round((second + self._zero_sec()) / self._stream.time_base)
            self._container.seek(stamp, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return False
        return True

    def _restart(self) -> None:
        self._container.close()
        self._container = open_container(self.path)
        self._stream = self._track()

    def _zero_sec(self) -> float:
        """Return second 0 of the file's clock in seconds of its time stamps, see `ifcar.extract.frame_clock`."""
        if has_zero(self._container):
            return 0.0
        streams = (*self._container.streams.video, *self._container.streams.audio)
        return min(float(own.start_time * own.time_base) for own in streams if own.start_time is not None)


def _resampled(resampler: Any, frame: Any) -> list[NDArray[np.float32]]:
    """Return resampled samples, the mean over channels."""
    return [out.to_ndarray().mean(0) for out in resampler.resample(frame)]
