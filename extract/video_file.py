"""Video files, by PyAV: their length and rate, and pictures of them.

Frames are decoded forwards, in one thread of the calling process, from the last key frame before those that are asked
for; which frame is which is told by when it is shown, known for each from a walk over the file's packets. Where that
fails (packets without times, frames that never come), frames are counted from the first.

Opening a file decodes its first frame inside FFmpeg, and the walk decodes that frame again; so a walk keeps the packets
of all but long videos, and pictures come from them, by the decoder that has begun already.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from ifcar.errors import InputError, one_line
from ifcar.extract.display_matrix import is_sideways, upright
from ifcar.extract.frame_index import FrameIndex
from ifcar.extract.limits import MAX_PIXELS, DecodeError, check_size
from ifcar.extract.picture_source import VideoInfo

# A video whose pictures end this long before its stated duration is taken as cut off.
_CUT_OFF_SEC = 0.5
_CUT_OFF_SHARE = 0.1
_MOST_KEPT_BYTES = 64 << 20  # of packets, between a walk and the pictures asked for after it
# Only containers that hold their own pictures, in local files: FFmpeg would also follow a playlist to the network
# (and retry for minutes), or render a text file as a terminal.
_FORMATS = ("matroska", "mov", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "ivf", "gif", "wav", "mp3")
_CODEC_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS), **_CODEC_OPTIONS}
# Codecs whose key frames need nothing of what comes before them; a GIF's frames are all marked as such, and are not.
_WITH_KEY_FRAMES = ("h264", "hevc", "mpeg4", "vp9")


class VideoFile:
    """A video file and its first video stream; a context manager that closes it.

    Args:
        path: the file.
        index: where its frames lie, from an earlier `info`; else the file is walked where it is needed.

    Raises:
        DecodeError: missing, empty or damaged file, or no video stream.
    """

    def __init__(self, path: Path, index: FrameIndex | None = None) -> None:
        self.path = path
        if not path.is_file():
            raise DecodeError(f"{path}: not there; expected a video file or a folder of frames")
        if not path.stat().st_size:
            raise DecodeError(f"{path}: empty file of 0 bytes; expected a video file, fetch it again")
        with self._reading():
            self._container: Any = av.open(str(path.absolute()), options=_OPEN_OPTIONS, metadata_errors="ignore")
        try:
            self._stream = self._choose_stream()
        except BaseException:
            self._container.close()
            raise
        self._codec: str = self._stream.codec_context.codec.canonical_name
        self._index = index
        # Every frame from the first; None once it was handed out, or when a walk could not keep what it went past.
        self._unread: Iterator[Any] | None = self._container.decode(self._stream)
        self._kept: list[Any] = []  # packets that a walk went past, but for the first

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def info(self) -> VideoInfo:
        """See `PictureSource.info`. Frames are counted by walking the packets, as WebM seldom states their number.

        Raises:
            DecodeError: a file that is damaged, cut off or without frames.
        """
        if self._unread is None:
            with VideoFile(self.path) as again:
                return again.info()
        first, times = self._walk()
        width, height = self._shown_size(first)
        seconds, end_sec = self._seconds(times)
        rate = self._stream.average_rate or self._stream.guessed_rate
        stated_sec = self._stated_duration()
        if stated_sec is not None and end_sec < stated_sec - max(_CUT_OFF_SEC, _CUT_OFF_SHARE * stated_sec):
            raise DecodeError(
                f"{self.path}: cut off after {end_sec:.1f} s ({len(times)} frames); expected {stated_sec:.1f} s, "
                "fetch it again"
            )
        return VideoInfo(
            num_frames=len(times),
            fps=float(rate) if rate else None,
            width=width,
            height=height,
            seconds=seconds,
            index=self._index,
        )

    def size(self) -> tuple[int, int]:
        """See `PictureSource.size`."""
        return self._shown_size(next(self._frames(), None))

    def pictures(self, wanted: Sequence[int]) -> Generator[tuple[int, Image.Image]]:
        """See `PictureSource.pictures`; decodes no further than needed."""
        if self._index is None and self._codec in _WITH_KEY_FRAMES:
            if self._unread is None:  # its first frame was asked for
                with VideoFile(self.path) as again:
                    yield from again.pictures(wanted)
                return
            self._walk()
        to_rgb = VideoReformatter()  # one for all frames: setting up a conversion costs more than doing it
        num_given = 0
        for frames in (self._by_time, self._by_counting):
            for number, frame in frames(wanted[num_given:]):
                yield number, self._picture(frame, to_rgb)
                num_given += 1
            if num_given == len(wanted):
                return

    def _by_time(self, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (number, frame) by when frames are shown, as far as that finds them."""
        if self._index is None:
            return
        frames: Iterator[Any] | None = None
        seen = -1
        for target in wanted:
            start = self._index.start_for(min(target, len(self._index.shown_at) - 1))
            if frames is None or start > seen + 1:
                frames = self._frames_from(start)
            for frame in frames:
                number = self._index.number_of(frame.pts)
                if number is None or number > target:
                    return
                seen = number
                if seen == target:
                    yield target, frame
                    break
            else:
                return

    def _by_counting(self, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (number, frame), decoding from the first frame on. Raises DecodeError where one does not come."""
        remaining = iter(wanted)
        target = next(remaining)
        num_seen = 0
        for number, frame in enumerate(self._frames()):
            num_seen = number + 1
            if number < target:
                continue
            yield number, frame
            following = next(remaining, None)
            if following is None:
                return
            target = following
        raise DecodeError(
            f"{self.path}: frame {target} is missing, only {num_seen} frames can be decoded; expected at least "
            f"{wanted[-1] + 1}, fetch it again or check the frame numbers"
        )

    def _picture(self, frame: Any, to_rgb: VideoReformatter) -> Image.Image:
        with self._reading():
            rgb = to_rgb.reformat(frame, format="rgb24")
        plane = rgb.planes[0]
        picture = Image.frombytes("RGB", (rgb.width, rgb.height), bytes(plane), "raw", "RGB", plane.line_size)
        return upright(self.path, frame, picture)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn every failure of FFmpeg into a DecodeError."""
        try:
            yield
        except (av.error.FFmpegError, ValueError, EOFError) as error:
            if isinstance(error, InputError):
                raise
            raise DecodeError(
                f"{self.path}: damaged or no video ({one_line(error)}); expected a whole video file"
            ) from error

    def _choose_stream(self) -> Any:
        streams = self._container.streams
        if not streams.video:
            kinds = ", ".join(sorted({stream.type for stream in streams})) or "no"
            raise DecodeError(f"{self.path}: {kinds} streams only; expected a video stream")
        stream = streams.video[0]
        with self._reading():
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            stream.codec_context.options = _CODEC_OPTIONS
        check_size(self.path, stream.width, stream.height)
        return stream

    def _frames(self) -> Iterator[Any]:
        """Yield every frame from the first, opening the file again where its frames were handed out already."""
        frames, self._unread = self._unread, None
        if frames is None:
            with VideoFile(self.path) as again:
                yield from again._frames()
            return
        with self._reading():
            yield from frames

    def _frames_from(self, start: int) -> Iterator[Any]:
        """Yield the frames from a key frame on; some that are shown before it may come first."""
        assert self._index is not None
        if start == 0:
            yield from self._frames()
            return
        self._unread = None
        pts = self._index.shown_at[start]
        place = next((k for k, packet in enumerate(self._kept) if packet.pts == pts), None)
        with self._reading():
            if place is None:
                self._container.seek(pts, stream=self._stream)
                yield from self._container.decode(self._stream)
            else:
                self._stream.codec_context.flush_buffers()
                yield from _decoded(itertools.islice(self._kept, place, None))

    def _walk(self) -> tuple[Any, list[tuple[int | None, int]]]:
        """Return the first frame, and of each frame that decoding will show when it begins and how long it lasts."""
        self._unread = None
        first: Any = None
        shown: list[Any] = []
        kept: list[Any] = []
        num_bytes = 0
        times: list[tuple[int | None, int]] = []
        keys: list[bool] = []
        # VP8 stores reference frames that are never shown as packets of their own, so that all of it must be decoded.
        is_vp8 = self._codec == "vp8"
        with self._reading():
            for packet in self._container.demux(self._stream):
                num_bytes += packet.size
                if is_vp8 or first is None:
                    frames = packet.decode()
                    first = first or next(iter(frames), None)
                    if is_vp8:
                        times += [(frame.pts, 0) for frame in frames]
                    else:
                        shown += frames
                elif num_bytes <= _MOST_KEPT_BYTES:
                    kept.append(packet)
                if not is_vp8 and packet.size and not packet.is_discard:
                    times.append((packet.pts, packet.duration or 0))
                    keys.append(packet.is_keyframe)
        if self._codec in _WITH_KEY_FRAMES:
            self._index = FrameIndex.of_packets([(pts, is_key) for (pts, _), is_key in zip(times, keys, strict=True)])
        if not is_vp8 and num_bytes <= _MOST_KEPT_BYTES:
            self._kept = kept
            self._unread = itertools.chain(shown, _decoded(kept))
        return first, times

    def _shown_size(self, first: Any) -> tuple[int, int]:
        """Return the (width, height) of the first frame as it is shown."""
        if first is None:
            raise DecodeError(f"{self.path}: no frame can be decoded; expected a whole video file, fetch it again")
        width, height = first.width, first.height
        return (height, width) if is_sideways(self.path, first) else (width, height)

    def _seconds(self, times: Sequence[tuple[int | None, int]]) -> tuple[tuple[float, ...] | None, float]:
        """Return when frames are shown (see `VideoInfo.seconds`), and when the last one ends."""
        unit = self._stream.time_base
        ends = [pts + duration for pts, duration in times if pts is not None]
        start = self._stream.start_time or 0
        end_sec = float((max(ends) - start) * unit) if ends else 0.0
        return _irregular_seconds([pts for pts, _ in times], float(unit)), end_sec

    def _stated_duration(self) -> float | None:
        """Return the duration in seconds that the file states for its pictures, or None where it cannot be known."""
        container, stream = self._container, self._stream
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        # The container's own duration is its longest stream's, which may be sound.
        if len(container.streams) == 1 and container.duration is not None:
            return float(container.duration / av.time_base)
        return None


def _decoded(packets: Iterable[Any]) -> Iterator[Any]:
    for packet in packets:
        yield from packet.decode()


def _irregular_seconds(shown_at: Sequence[int | None], unit_sec: float) -> tuple[float, ...] | None:
    """Return the frames' times from the first, or None when no frame is off an even pace by more than one frame."""
    known = sorted(pts for pts in shown_at if pts is not None)
    if len(known) < len(shown_at) or len(known) < 3:
        return None
    seconds = (np.array(known, np.float64) - known[0]) * unit_sec
    step = seconds[-1] / (len(seconds) - 1)
    if np.abs(seconds - step * np.arange(len(seconds))).max() <= step:
        return None
    return tuple(seconds.tolist())
