"""Reading chosen frames of a video file or a folder of frames, cropped and resized.

Frames are decoded once, forwards, in one thread of the calling process; PyAV reads video files, PIL reads images.
Cropping and resizing are one step: PIL's antialiased triangle filter over the crop's exact (fractional) box, so no
pixel is moved by rounding and shrinking averages every pixel it covers.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
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
from ifcar.extract.geometry import Crop

_FRAME_NAME = re.compile(r"^(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\.(?:jpe?g|png|webp|bmp))$", re.IGNORECASE)
# A video whose pictures end this long before its stated duration is taken as cut off.
_CUT_OFF_SEC = 0.5
_CUT_OFF_SHARE = 0.1
# Only containers that hold their own pictures, in local files: FFmpeg would also follow a playlist to the network
# (and retry for minutes), or render a text file as a terminal.
_FORMATS = ("matroska", "mov", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "ivf", "gif", "wav", "mp3")
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}


class DecodeError(InputError):
    """A video or frame folder cannot be read; the clip that needs it fails, others go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video holds.

    Args:
        num_frames: frames, counted; for a folder the highest frame number.
        fps: average frames per second, or None when unknown (always for a folder).
        width: frame width in pixels.
        height: frame height in pixels.
    """

    num_frames: int
    fps: float | None
    width: int
    height: int


def probe(source: Path) -> VideoInfo:
    """Return the size, length and rate of a video file or a folder of frames.

    Frames of a video file are counted by walking its packets, because WebM seldom states their number.

    Args:
        source: video file, or folder with 0001.jpg, 0002.jpg, … (numbers from 1; other files are ignored).

    Raises:
        DecodeError: missing, empty, damaged or cut-off file, no video stream, or a folder without frames.
    """
    if source.is_dir():
        files = _frame_files(source)
        width, height = _open_image(files[min(files)], read_pixels=False).size
        return VideoInfo(num_frames=max(files), fps=None, width=width, height=height)
    with _video(source) as (container, stream):
        num_frames, end_sec = _count_frames(container, stream)
        rate = stream.average_rate or stream.guessed_rate
        info = VideoInfo(
            num_frames=num_frames, fps=float(rate) if rate else None, width=stream.width, height=stream.height
        )
        stated_sec = _stated_duration(container, stream)
    if not info.num_frames or info.width < 1 or info.height < 1:
        raise DecodeError(f"{source}: no frame can be decoded; expected a whole video file, fetch it again")
    if stated_sec is not None and end_sec < stated_sec - max(_CUT_OFF_SEC, _CUT_OFF_SHARE * stated_sec):
        raise DecodeError(
            f"{source}: cut off after {end_sec:.1f} s ({num_frames} frames); expected {stated_sec:.1f} s, "
            "fetch it again"
        )
    return info


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
    read = _folder_pictures if source.is_dir() else _video_pictures
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
            yield container, stream
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise DecodeError(f"{source}: damaged or no video ({_one_line(error)}); expected a whole video file") from error


def _count_frames(container: Any, stream: Any) -> tuple[int, float]:
    """Return the number of frames that decoding will show, and when the last one ends in seconds."""
    if stream.codec_context.codec.canonical_name == "vp8":
        # VP8 stores reference frames that are never shown as packets of their own.
        times = [(frame.pts, 0) for frame in container.decode(stream)]
    else:
        times = [
            (packet.pts, packet.duration or 0)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
    ends = [pts + duration for pts, duration in times if pts is not None]
    start = stream.start_time or 0
    return len(times), float((max(ends) - start) * stream.time_base) if ends else 0.0


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
            yield number, Image.frombytes("RGB", (rgb.width, rgb.height), bytes(plane), "raw", "RGB", plane.line_size)
            following = next(remaining, None)
            if following is None:
                return
            target = following
    raise DecodeError(
        f"{source}: frame {target} is missing, only {num_seen} frames can be decoded; expected at least "
        f"{wanted[-1] + 1}, fetch it again or check the frame numbers"
    )


def _folder_pictures(source: Path, wanted: Sequence[int]) -> Generator[tuple[int, Image.Image]]:
    """Yield (number, picture) for frame numbers from 0 of a folder of frames."""
    files = _frame_files(source)
    for number in wanted:
        if number + 1 not in files:
            raise DecodeError(
                f"{source / _expected_name(files, number + 1)}: this frame is missing; expected frame files up to "
                f"number {wanted[-1] + 1}, the folder holds {len(files)} up to number {max(files)}"
            )
        yield number, _open_image(files[number + 1], read_pixels=True)


def _frame_files(folder: Path) -> dict[int, Path]:
    """Return the image files of a folder by the number at the end of their names."""
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _FRAME_NAME.match(path.name)
        if match is None:
            continue
        number = int(match["number"])
        if number < 1 or number in files:
            fault = "is numbered 0" if number < 1 else f"has the same number as {files[number].name}"
            raise DecodeError(f"{path}: this frame {fault}; expected each number from 1 once, as 0001.jpg")
        files[number] = path
    if not files:
        raise DecodeError(f"{folder}: no frames in this folder; expected images named 0001.jpg, 0002.jpg, …")
    return files


def _expected_name(files: dict[int, Path], number: int) -> str:
    """Return how the file of a frame would be called, after the pattern of its neighbours."""
    match = _FRAME_NAME.match(files[min(files)].name)
    assert match is not None
    return f"{match['prefix']}{number:0{len(match['number'])}d}{match['suffix']}"


def _open_image(path: Path, *, read_pixels: bool) -> Image.Image:
    """Open an image file; with `read_pixels` decode it to RGB."""
    try:
        with Image.open(path) as image:
            # convert() and copy() detach the result from the file, which is closed here.
            return image.convert("RGB") if read_pixels else Image.new("1", image.size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DecodeError(f"{path}: damaged or no image ({_one_line(error)}); expected a whole image file") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
