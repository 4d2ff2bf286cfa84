"""Opening a file of pictures and sound with FFmpeg: which containers are read, and how its failures are said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from ifcar.errors import InputError, one_line
from ifcar.extract.limits import MAX_PIXELS, DecodeError

# Only containers that hold their own pictures, in local files: FFmpeg would also follow a playlist to the network
# (and retry for minutes), or render a text file as a terminal.
_FORMATS = ("matroska", "mov", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "ivf", "gif", "wav", "mp3")
_WITH_ZERO = ("matroska", "mov", "avi")
CODEC_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS), **CODEC_OPTIONS}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every failure of FFmpeg on a file into a DecodeError."""
    try:
        yield
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise DecodeError(f"{path}: damaged or no video ({one_line(error)}); expected a whole video file") from error


def open_container(path: Path) -> Any:
    """Return the open file, which the caller closes.

    Raises:
        DecodeError: missing, empty or damaged file.
    """
    if not path.is_file():
        raise DecodeError(f"{path}: not there; expected a video file or a folder of frames")
    if not path.stat().st_size:
        raise DecodeError(f"{path}: empty file of 0 bytes; expected a video file, fetch it again")
    with reading(path):
        return av.open(str(path.absolute()), options=_OPEN_OPTIONS, metadata_errors="ignore")


def format_of(container: Any) -> str:
    """Return the name of an open file's format."""
    name: str = container.format.name.split(",")[0]
    return name


def has_zero(container: Any) -> bool:
    """Return whether the container's clock has a second 0 of its own, see `ifcar.extract.frame_clock`."""
    return format_of(container) in _WITH_ZERO


def stated_sec(path: Path) -> float | None:
    """Return the second at which a file says to end, without a walk through it; None where it does not say.

    It is the end of the longest of its streams, so that pictures may end before.

    Raises:
        DecodeError: as for `open_container`.
    """
    container = open_container(path)
    try:
        return None if container.duration is None else float(container.duration / av.time_base)
    finally:
        container.close()
