"""Reading chosen frames of a video file or a folder of frames, cropped and resized.

Frames are decoded once, forwards, in one thread of the calling process; PyAV reads video files, PIL reads images.
Pictures are turned and mirrored as their file says, as players do: sizes, crops and boxes are those of what is shown.
Cropping and resizing are one step: PIL's antialiased triangle filter over the crop's exact (fractional) box, so no
pixel is moved by rounding and shrinking averages every pixel it covers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ifcar.errors import InputError
from ifcar.extract.frame_folder import FrameFolder
from ifcar.extract.geometry import Crop
from ifcar.extract.limits import DecodeError
from ifcar.extract.picture_source import PictureSource, VideoInfo
from ifcar.extract.video_file import VideoFile


@contextmanager
def open_source(path: Path, known: VideoInfo | None = None) -> Iterator[PictureSource]:
    """Open a video file, or a folder with 0001.jpg, 0002.jpg, … (numbers from 1; other files are ignored).

    Args:
        path: the file or folder.
        known: what an earlier `info` said of it, which spares a long video another walk; changes no picture.

    Raises:
        DecodeError: missing, empty or damaged file, no video stream, or a folder without frames.
    """
    if path.is_dir():
        yield FrameFolder(path)
        return
    with VideoFile(path, known.index if known else None) as video:
        yield video


def probe(path: Path) -> VideoInfo:
    """Return what a source holds; see `open_source`.

    Raises:
        DecodeError: as for `open_source`, or a video that is cut off.
    """
    with open_source(path) as source:
        return source.info()


def frame_size(path: Path) -> tuple[int, int]:
    """Return the (width, height) in pixels, as shown, of a source, without counting frames; see `open_source`.

    Raises:
        DecodeError: as for `open_source`.
    """
    with open_source(path) as source:
        return source.size()


def read_frames(path: Path, frame_numbers: Sequence[int], crop: Crop, size: int, flip: bool) -> NDArray[np.uint8]:
    """Open a source and return `cut_frames` of it.

    Raises:
        DecodeError, InputError: see there and `open_source`.
    """
    with open_source(path) as source:
        return cut_frames(source, frame_numbers, crop, size, flip)


def cut_frames(
    source: PictureSource, frame_numbers: Sequence[int], crop: Crop, size: int, flip: bool
) -> NDArray[np.uint8]:
    """Read frames of an open source, cut out the crop, resize it to a square and mirror it.

    Args:
        source: see `open_source`.
        frame_numbers: T frame numbers from 0, in any order, repeats allowed; in a folder number f is the file
            numbered f + 1.
        crop: the region that is kept, normalised to the frame.
        size: S, side of the result in pixels.
        flip: True mirrors left and right, after the crop.

    Returns:
        (T, S, S, 3) uint8 RGB, in the order of `frame_numbers`.

    Raises:
        DecodeError: a frame is missing or damaged.
        InputError: no frame or an impossible size is asked for.
    """
    wanted = sorted(set(frame_numbers))
    if not wanted or wanted[0] < 0 or size < 1:
        raise InputError(
            f"{source.path}: cannot read frames {list(frame_numbers)} at size {size}; expected at least one number "
            "from 0 and a size of at least 1"
        )
    resized: dict[int, NDArray[np.uint8]] = {}
    first_size: tuple[int, int] | None = None
    with closing(source.pictures(wanted)) as pictures:
        for number, picture in pictures:
            first_size = first_size or picture.size
            if picture.size != first_size:
                raise DecodeError(
                    f"{source.path}: frame {number} is {picture.width} × {picture.height}, an earlier one "
                    f"{first_size[0]} × {first_size[1]}; expected one size throughout"
                )
            box = crop.pixel_box(picture.size)
            pixels = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))
            resized[number] = pixels[:, ::-1] if flip else pixels
    return np.stack([resized[number] for number in frame_numbers])
