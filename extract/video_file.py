"""Video files, by PyAV: their length and rate, and pictures of them.

Frames are decoded forwards, in one thread of the calling process. Opening a file decodes its first frame inside FFmpeg,
and walking it for its length decodes that frame again; so the packets of a walk are kept, and pictures that are asked
for after it come from them, by the decoder that has begun already.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from ifcar.errors import InputError
from ifcar.extract.limits import MAX_PIXELS, DecodeError, check_size, one_line
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
_MATRIX_BYTES = 36
# How a display matrix ((a, b), (c, d)) of quarter turns and mirrors moves a pixel at (x, y) to (ax + cy, bx + dy).
_TURNS: Mapping[tuple[int, int, int, int], Image.Transpose] = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,  # PIL turns against the clock
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
_UPRIGHT = (1, 0, 0, 1)


class VideoFile:
    """A video file and its first video stream; a context manager that closes it.

    Args:
        path: the file.

    Raises:
        DecodeError: missing, empty or damaged file, or no video stream.
    """

    def __init__(self, path: Path) -> None:
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
        # Every frame from the first; None once it was handed out, or when a walk could not keep what it went past.
        self._unread: Iterator[Any] | None = self._container.decode(self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def info(self) -> VideoInfo:
        """See `PictureSource.info`. Frames are counted by walking the packets, because WebM seldom states their number.

        Raises:
            DecodeError: a file that is damaged, cut off or without frames.
        """
        if self._unread is None:
            with VideoFile(self.path) as again:
                return again.info()
        with self._reading():
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
            num_frames=len(times), fps=float(rate) if rate else None, width=width, height=height, seconds=seconds
        )

    def size(self) -> tuple[int, int]:
        """See `PictureSource.size`."""
        return self._shown_size(next(self._frames(), None))

    def pictures(self, wanted: Sequence[int]) -> Generator[tuple[int, Image.Image]]:
        """See `PictureSource.pictures`; decodes no further than needed."""
        remaining = iter(wanted)
        target = next(remaining)
        num_seen = 0
        to_rgb = VideoReformatter()  # one for all frames: setting up a conversion costs more than doing it
        for number, frame in enumerate(self._frames()):
            num_seen = number + 1
            if number < target:
                continue
            with self._reading():
                rgb = to_rgb.reformat(frame, format="rgb24")
            plane = rgb.planes[0]
            turn = _TURNS.get(self._display_matrix(frame))
            picture = Image.frombytes("RGB", (rgb.width, rgb.height), bytes(plane), "raw", "RGB", plane.line_size)
            yield number, picture if turn is None else picture.transpose(turn)
            following = next(remaining, None)
            if following is None:
                return
            target = following
        raise DecodeError(
            f"{self.path}: frame {target} is missing, only {num_seen} frames can be decoded; expected at least "
            f"{wanted[-1] + 1}, fetch it again or check the frame numbers"
        )

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

    def _walk(self) -> tuple[Any, list[tuple[int | None, int]]]:
        """Return the first frame, and of each frame that decoding will show when it begins and how long it lasts."""
        self._unread = None
        shown: list[Any] = []
        kept: list[Any] = []
        num_bytes = 0
        times: list[tuple[int | None, int]] = []
        # VP8 stores reference frames that are never shown as packets of their own, so that all of it must be decoded.
        is_vp8 = self._stream.codec_context.codec.canonical_name == "vp8"
        first: Any = None
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
        if not is_vp8 and num_bytes <= _MOST_KEPT_BYTES:
            self._unread = itertools.chain(shown, (frame for packet in kept for frame in packet.decode()))
        return first, times

    def _shown_size(self, first: Any) -> tuple[int, int]:
        """Return the (width, height) of the first frame as it is shown."""
        if first is None:
            raise DecodeError(f"{self.path}: no frame can be decoded; expected a whole video file, fetch it again")
        width, height = first.width, first.height
        return (height, width) if _is_sideways(self._display_matrix(first)) else (width, height)

    def _seconds(self, times: Sequence[tuple[int | None, int]]) -> tuple[tuple[float, ...] | None, float]:
        """Return when frames are shown (see `VideoInfo.seconds`), and when the last one ends."""
        unit = self._stream.time_base
        ends = [pts + duration for pts, duration in times if pts is not None]
        start = self._stream.start_time or 0
        end_sec = float((max(ends) - start) * unit) if ends else 0.0
        return _irregular_seconds([pts for pts, _ in times], float(unit)), end_sec

    def _display_matrix(self, frame: Any) -> tuple[int, int, int, int]:
        """Return the signs (a, b, c, d) of a frame's display matrix, see `_TURNS`."""
        for data in frame.side_data:
            content = bytes(data)
            if data.type.name == "DISPLAYMATRIX" and len(content) == _MATRIX_BYTES:
                a, b, _, c, d = struct.unpack("=5i", content[:20])
                largest = max(map(abs, (a, b, c, d)))
                turn = tuple(round(value / largest) if largest else 0 for value in (a, b, c, d))
                if turn != _UPRIGHT and turn not in _TURNS:
                    raise DecodeError(
                        f"{self.path}: turned by no quarter turn (matrix {(a, b, c, d)}); encode it upright"
                    )
                return turn  # type: ignore[return-value]
        return _UPRIGHT

    def _stated_duration(self) -> float | None:
        """Return the duration in seconds that the file states for its pictures, or None where it cannot be known."""
        container, stream = self._container, self._stream
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        # The container's own duration is its longest stream's, which may be sound.
        if len(container.streams) == 1 and container.duration is not None:
            return float(container.duration / av.time_base)
        return None


def _is_sideways(matrix: tuple[int, int, int, int]) -> bool:
    return matrix[0] == 0


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
