"""How a video says that its pictures are turned or mirrored: the display matrix beside a decoded frame."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ifcar.extract.limits import DecodeError

_MATRIX_BYTES = 36
# How a display matrix ((a, b), (c, d)) of quarter turns and mirrors moves a pixel at (x, y) to (ax + cy, bx + dy).
_TURNS: Mapping[tuple[int, ...], Image.Transpose] = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,  # PIL turns against the clock
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
_UPRIGHT = (1, 0, 0, 1)


def upright(source: Path, frame: Any, picture: Image.Image) -> Image.Image:
    """Return a frame's picture as it is shown. Raises DecodeError, which names `source`, for any but quarter turns."""
    turn = _TURNS.get(_signs(source, frame))
    return picture if turn is None else picture.transpose(turn)


def is_sideways(source: Path, frame: Any) -> bool:
    """Return whether a frame is shown with width and height exchanged. Raises DecodeError as `upright` does."""
    return _signs(source, frame)[0] == 0


def _signs(source: Path, frame: Any) -> tuple[int, ...]:
    """Return the signs (a, b, c, d) of a frame's display matrix, see `_TURNS`."""
    for data in frame.side_data:
        content = bytes(data)
        if data.type.name == "DISPLAYMATRIX" and len(content) == _MATRIX_BYTES:
            a, b, _, c, d = struct.unpack("=5i", content[:20])
            largest = max(map(abs, (a, b, c, d)))
            turn = tuple(round(value / largest) if largest else 0 for value in (a, b, c, d))
            if turn != _UPRIGHT and turn not in _TURNS:
                raise DecodeError(f"{source}: turned by no quarter turn (matrix {(a, b, c, d)}); encode it upright")
            return turn
    return _UPRIGHT
