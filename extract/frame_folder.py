"""Folders of frames: numbered image files, decoded to upright 8-bit RGB.

An image is turned as its EXIF orientation says, as viewers do. 16-bit images keep their upper 8 bits; palettes, gray
and CMYK are converted; transparency is left out.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from ifcar.data_files import entries, is_data
from ifcar.errors import one_line
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.limits import MAX_FRAME_NUMBER, DecodeError, check_size
from ifcar.extract.picture_source import VideoInfo

_FRAME_NAME = re.compile(r"^(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\.(?:jpe?g|png|webp|bmp))$", re.IGNORECASE)
# Only these: PIL would also open an EPS file, and hand it to Ghostscript to run.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
# What PIL raises for a damaged image.
_FAULTS = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error, Image.DecompressionBombError)


def frame_files(folder: Path) -> dict[int, Path]:
    """Return the image files of a folder by the number at the end of their names.

    Raises:
        DecodeError: none, a number twice, or a number out of range.
    """
    files: dict[int, Path] = {}
    for path in entries(folder):
        match = _FRAME_NAME.match(path.name)
        if match is None:
            continue
        number = int(match["number"])
        fault = f"has the same number as {files[number].name}" if number in files else ""
        if not 1 <= number <= MAX_FRAME_NUMBER:
            fault = f"is numbered {number}"
        if fault:
            raise DecodeError(f"{path}: this frame {fault}; expected each number from 1 once, as 0001.jpg")
        files[number] = path
    if not files:
        raise DecodeError(f"{folder}: no frames in this folder; expected images named 0001.jpg, 0002.jpg, …")
    return files


def has_frames(folder: Path) -> bool:
    """Return whether a folder holds an image file with a number; reads no more of it than needed."""
    with os.scandir(folder) as found:
        return any(is_data(entry.name) and _FRAME_NAME.match(entry.name) for entry in found)


class FrameFolder:
    """A folder of frames; see `PictureSource`.

    Args:
        path: the folder, with 0001.jpg, 0002.jpg, … (numbers from 1; other files are ignored).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = frame_files(path)

    def info(self) -> VideoInfo:
        """See `PictureSource.info`."""
        width, height = self.size()
        return VideoInfo(clock=FrameClock(num_frames=max(self._files), fps=None), width=width, height=height)

    def size(self) -> tuple[int, int]:
        """See `PictureSource.size`."""
        return shown_size(self._files[min(self._files)])

    def pictures(self, wanted: Sequence[int]) -> Generator[tuple[int, Image.Image]]:
        """See `PictureSource.pictures`."""
        for number in wanted:
            if number + 1 not in self._files:
                raise DecodeError(
                    f"{self.path / _expected_name(self._files, number + 1)}: this frame is missing; expected frame "
                    f"files up to number {wanted[-1] + 1}, the folder holds {len(self._files)} up to number "
                    f"{max(self._files)}"
                )
            with _opened(self._files[number + 1]) as image:
                # convert() detaches the result from the file, which is closed here.
                picture = _in_8_bits(image).convert("RGB")
                turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
                picture = picture if turn is None else picture.transpose(turn)
            yield number, picture


def shown_size(path: Path) -> tuple[int, int]:
    """Return an image's (width, height) as it is shown, without decoding more than needed."""
    with _opened(path) as image:
        if image.format == "PNG":
            image.load()  # EXIF data may come after the pixels
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION) in _SIDEWAYS else (width, height)


def _expected_name(files: dict[int, Path], number: int) -> str:
    """Return how the file of a frame would be called, after the pattern of its neighbours."""
    match = _FRAME_NAME.match(files[min(files)].name)
    assert match is not None
    return f"{match['prefix']}{number:0{len(match['number'])}d}{match['suffix']}"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; every failure inside becomes a DecodeError."""
    if not path.is_file():
        raise DecodeError(f"{path}: no file; expected an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size is stricter
            with Image.open(path, formats=_FORMATS) as image:
                check_size(path, *image.size)
                yield image
    except DecodeError:
        raise
    except _FAULTS as error:
        raise DecodeError(f"{path}: damaged or no image ({one_line(error)}); expected a whole image file") from error


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return an image of 16 bits with its upper 8 bits, and any other as it is."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
