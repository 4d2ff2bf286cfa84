"""Reading chosen frames of a video file or a folder of frames, cropped and resized.

Frames are decoded once, forwards, in one thread of the calling process; PyAV reads video files, PIL reads images.
Pictures are turned and mirrored as their file says, as players do: sizes, crops and boxes are those of what is shown.
Cropping and resizing are one step: PIL's antialiased triangle filter over the crop's exact (fractional) box, so no
pixel is moved by rounding and shrinking averages every pixel it covers.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from ifcar.errors import InputError
from ifcar.extract.frame_folder import folder_pictures, frame_files, shown_size
from ifcar.extract.geometry import Crop
from ifcar.extract.limits import MAX_PIXELS, DecodeError, check_size, one_line

# A video whose pictures end this long before its stated duration is taken as cut off.
_CUT_OFF_SEC = 0.5
_CUT_OFF_SHARE = 0.1
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


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video holds.

    Args:
        num_frames: frames, counted; for a folder the highest frame number.
        fps: average frames per second, or None when unknown (always for a folder).
        width: frame width in pixels, as shown.
        height: frame height in pixels, as shown.
        seconds: (num_frames,) when each frame is shown, from the first, of a video of variable frame rate; else None.
    """

    num_frames: int
    fps: float | None
    width: int
    height: int
    seconds: tuple[float, ...] | None = None


def probe(source: Path) -> VideoInfo:
    """Return the size, length and rate of a video file or a folder of frames.

    Frames of a video file are counted by walking its packets, because WebM seldom states their number.

    Args:
        source: video file, or folder with 0001.jpg, 0002.jpg, … (numbers from 1; other files are ignored).

    Raises:
        DecodeError: missing, empty, damaged or cut-off file, no video stream, or a folder without frames.
    """
    if source.is_dir():
        width, height = frame_size(source)
        return VideoInfo(num_frames=max(frame_files(source)), fps=None, width=width, height=height)
    with _video(source) as (container, stream):
        first, times = _walk(container, stream)
        width, height = _shown_size(source, first)
        num_frames, seconds, end_sec = len(times), *_seconds(stream, times)
        rate = stream.average_rate or stream.guessed_rate
        stated_sec = _stated_duration(container, stream)
    if stated_sec is not None and end_sec < stated_sec - max(_CUT_OFF_SEC, _CUT_OFF_SHARE * stated_sec):
        raise DecodeError(
            f"{source}: cut off after {end_sec:.1f} s ({num_frames} frames); expected {stated_sec:.1f} s, "
            "fetch it again"
        )
    return VideoInfo(
        num_frames=num_frames, fps=float(rate) if rate else None, width=width, height=height, seconds=seconds
    )


def frame_size(source: Path) -> tuple[int, int]:
    """Return the (width, height) in pixels, as shown, of a video file or a folder of frames, without counting frames.

    Args:
        source: as for `probe`.

    Raises:
        DecodeError: as for `probe`, apart from a file that is cut off.
    """
    if source.is_dir():
        files = frame_files(source)
        return shown_size(files[min(files)])
    with _video(source) as (container, stream):
        return _shown_size(source, next(container.decode(stream), None))


def read_frames(source: Path, frame_numbers: Sequence[int], crop: Crop, size: int, flip: bool) -> NDArray[np.uint8]:
    """Read frames, cut out the crop, resize it to a square and mirror it.

    Args:
        source: video file or folder of frames, as for `probe`.
        frame_numbers: T frame numbers from 0, in any order, repeats allowed; in a folder number f is the file
            numbered f + 1.
        crop: the region that is kept, normalised to the frame.
        size: S, side of the result in pixels.
        flip: True mirrors left and right, after the crop.

    Returns:
        (T, S, S, 3) uint8 RGB, in the order of `frame_numbers`.

    Raises:
        DecodeError: a frame is missing or damaged, or the source is none that `probe` accepts.
        InputError: no frame or an impossible size is asked for.
    """
    wanted = sorted(set(frame_numbers))
    if not wanted or wanted[0] < 0 or size < 1:
        raise InputError(
            f"{source}: cannot read frames {list(frame_numbers)} at size {size}; expected at least one number "
            "from 0 and a size of at least 1"
        )
    read = folder_pictures if source.is_dir() else _video_pictures
    resized: dict[int, NDArray[np.uint8]] = {}
    first_size: tuple[int, int] | None = None
    with closing(read(source, wanted)) as pictures:
        for number, picture in pictures:
            first_size = first_size or picture.size
            if picture.size != first_size:
                raise DecodeError(
                    f"{source}: frame {number} is {picture.width} × {picture.height}, an earlier one "
                    f"{first_size[0]} × {first_size[1]}; expected one size throughout"
                )
            box = crop.pixel_box(picture.size)
            pixels = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))
            resized[number] = pixels[:, ::-1] if flip else pixels
    return np.stack([resized[number] for number in frame_numbers])


@contextmanager
def _video(source: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video file and its first video stream; every failure inside becomes a DecodeError."""
    if not source.is_file():
        raise DecodeError(f"{source}: not there; expected a video file or a folder of frames")
    if not source.stat().st_size:
        raise DecodeError(f"{source}: empty file of 0 bytes; expected a video file, fetch it again")
    try:
        with av.open(str(source.absolute()), options=_OPEN_OPTIONS, metadata_errors="ignore") as container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no"
                raise DecodeError(f"{source}: {kinds} streams only; expected a video stream")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            stream.codec_context.options = _CODEC_OPTIONS
            check_size(source, stream.width, stream.height)
            yield container, stream
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise DecodeError(f"{source}: damaged or no video ({one_line(error)}); expected a whole video file") from error


def _walk(container: Any, stream: Any) -> tuple[Any, list[tuple[int | None, int]]]:
    """Return the first frame, and of each frame that decoding will show when it begins and how long it lasts."""
    first: Any = None
    times: list[tuple[int | None, int]] = []
    # VP8 stores reference frames that are never shown as packets of their own, so that all of it must be decoded.
    is_vp8 = stream.codec_context.codec.canonical_name == "vp8"
    for packet in container.demux(stream):
        frames = packet.decode() if is_vp8 or first is None else []
        first = first or next(iter(frames), None)
        if is_vp8:
            times += [(frame.pts, 0) for frame in frames]
        elif packet.size and not packet.is_discard:
            times.append((packet.pts, packet.duration or 0))
    return first, times


def _shown_size(source: Path, first: Any) -> tuple[int, int]:
    """Return the (width, height) of the first frame as it is shown."""
    if first is None:
        raise DecodeError(f"{source}: no frame can be decoded; expected a whole video file, fetch it again")
    width, height = first.width, first.height
    return (height, width) if _is_sideways(_display_matrix(source, first)) else (width, height)


def _seconds(stream: Any, times: Sequence[tuple[int | None, int]]) -> tuple[tuple[float, ...] | None, float]:
    """Return when frames are shown (see `VideoInfo.seconds`), and when the last one ends."""
    ends = [pts + duration for pts, duration in times if pts is not None]
    start = stream.start_time or 0
    end_sec = float((max(ends) - start) * stream.time_base) if ends else 0.0
    return _irregular_seconds([pts for pts, _ in times], float(stream.time_base)), end_sec


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


def _display_matrix(source: Path, frame: Any) -> tuple[int, int, int, int]:
    """Return the signs (a, b, c, d) of a frame's display matrix, see `_TURNS`."""
    for data in frame.side_data:
        content = bytes(data)
        if data.type.name == "DISPLAYMATRIX" and len(content) == _MATRIX_BYTES:
            a, b, _, c, d = struct.unpack("=5i", content[:20])
            largest = max(map(abs, (a, b, c, d)))
            turn = tuple(round(value / largest) if largest else 0 for value in (a, b, c, d))
            if turn != _UPRIGHT and turn not in _TURNS:
                raise DecodeError(f"{source}: turned by no quarter turn (matrix {(a, b, c, d)}); encode it upright")
            return turn  # type: ignore[return-value]
    return _UPRIGHT


def _is_sideways(matrix: tuple[int, int, int, int]) -> bool:
    return matrix[0] == 0


def _stated_duration(container: Any, stream: Any) -> float | None:
    """Return the duration in seconds that the file states for its pictures, or None where it cannot be known."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # The container's own duration is its longest stream's, which may be sound.
    if len(container.streams) == 1 and container.duration is not None:
        return float(container.duration / av.time_base)
    return None


def _video_pictures(source: Path, wanted: Sequence[int]) -> Generator[tuple[int, Image.Image]]:
    """Yield (number, picture) for ascending frame numbers of a video file, decoding no further than needed."""
    remaining = iter(wanted)
    target = next(remaining)
    num_seen = 0
    to_rgb = VideoReformatter()  # one for all frames: setting up a conversion costs more than doing it
    with _video(source) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            num_seen = number + 1
            if number < target:
                continue
            rgb = to_rgb.reformat(frame, format="rgb24")
            plane = rgb.planes[0]
            turn = _TURNS.get(_display_matrix(source, frame))
            picture = Image.frombytes("RGB", (rgb.width, rgb.height), bytes(plane), "raw", "RGB", plane.line_size)
            yield number, picture if turn is None else picture.transpose(turn)
            following = next(remaining, None)
            if following is None:
                return
            target = following
    raise DecodeError(
        f"{source}: frame {target} is missing, only {num_seen} frames can be decoded; expected at least "
        f"{wanted[-1] + 1}, fetch it again or check the frame numbers"
    )
