"""How large a video, a picture and a run of the engine may be, and the error of a source that cannot be read."""

from __future__ import annotations

from pathlib import Path

from ifcar.config_fields import Bounds
from ifcar.errors import InputError

MAX_PIXELS = 1 << 26  # of one frame: 8192 × 8192, twice of what 8K video has
MAX_FRAME_NUMBER = 9_999_999
MAX_COORDINATE = 1e6  # of a box, in pixels, whatever its sign
BATCH_SIZES, WORKERS = Bounds(least=1, most=4096), Bounds(least=0, most=256)


class DecodeError(InputError):
    """A video or frame folder cannot be read; the clip that needs it fails, others go on."""


def check_size(source: Path, width: int, height: int) -> None:
    """Refuse pictures too large to be decoded safely. Raises DecodeError."""
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{source}: frames of {width} × {height} pixels; at most {MAX_PIXELS:,} pixels are read")
