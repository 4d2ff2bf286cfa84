"""Boxes and crops: the one place where pixel boxes live.

Convention: pixel coordinates are continuous and pixel i covers [i, i + 1), so its centre lies at i + 0.5 and a
frame W pixels wide spans [0, W]. Worked numbers: in a frame of 320 × 240 the crop of 224/256 of the short side
is a square of 210 pixels over x in [55, 265] and y in [15, 225]. The pixel box (x1, y1, x2, y2) =
(160, 15, 265, 120) covers pixels 160 … 264 and 15 … 119; inside that crop it spans x in [0.5, 1] and y in
[0, 0.5], which is (cx, cy, w, h) = (0.75, 0.25, 0.5, 0.5), and (0.25, 0.25, 0.5, 0.5) when mirrored. Resized
to 224 × 224 it is the pixel box (112, 0, 224, 112). No conversion adds or subtracts a half or a whole pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifcar.cache.arrays import PICTURE_SIZES
from ifcar.errors import InputError

# Sides below this share of the crop are rounding noise of boxes that only touch its border.
_SMALLEST_SIDE = 1e-6
# A crop read back from float32 may stick out of the frame by this much.
_CROP_TOLERANCE = 1e-5
_LARGEST_ASPECT = 1.1  # of a random crop's width over height, beside the frame's own
_SCALES = (1.0, 0.875, 0.75, 0.66)


@dataclass(frozen=True, slots=True)
class Crop:
    """A region of the frame, normalised to the full frame: centre (cx, cy), width w and height h in [0, 1]."""

    cx: float
    cy: float
    w: float
    h: float

    def __post_init__(self) -> None:
        inside = self.w > 0 and self.h > 0
        for centre, side in ((self.cx, self.w), (self.cy, self.h)):
            inside = inside and centre - side / 2 >= -_CROP_TOLERANCE
            inside = inside and centre + side / 2 <= 1 + _CROP_TOLERANCE
        if not inside:
            raise InputError(
                f"crop (cx, cy, w, h) = ({self.cx:g}, {self.cy:g}, {self.w:g}, {self.h:g}) reaches out of the "
                "frame or is empty; expected a region inside [0, 1] × [0, 1]"
            )

    def pixel_box(self, frame_size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the crop as (x1, y1, x2, y2) in pixels of a frame of size (width, height), inside the frame."""
        width, height = frame_size
        x1, x2 = (self.cx - self.w / 2) * width, (self.cx + self.w / 2) * width
        y1, y2 = (self.cy - self.h / 2) * height, (self.cy + self.h / 2) * height
        return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


FULL_FRAME = Crop(0.5, 0.5, 1.0, 1.0)


def boxes_to_crop(
    boxes_xyxy_pixels: ArrayLike, frame_size: tuple[int, int], crop: Crop, flip: bool
) -> NDArray[np.float32]:
    """Carry pixel boxes of the full frame into a crop, clip them to it, then mirror them.

    Args:
        boxes_xyxy_pixels: (..., 4) float, (x1, y1, x2, y2) in pixels of the full frame; may reach past its
            border; NaN = absent.
        frame_size: (width, height) of the full frame in pixels.
        crop: the region that is kept.
        flip: True mirrors left and right, after the crop.

    Returns:
        (..., 4) float32, (cx, cy, w, h) normalised to the crop, inside [0, 1]. A box that is absent, inverted
        or has no area left in the crop is all zeros.

    Raises:
        InputError: the last axis is not 4, or the frame has no area.
    """
    boxes = np.asarray(boxes_xyxy_pixels, dtype=np.float64)
    width, height = frame_size
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise InputError(f"boxes have shape {boxes.shape}; expected (..., 4) with x1, y1, x2, y2 in pixels")
    if width < 1 or height < 1:
        raise InputError(f"frame size is {width} × {height}; expected a width and height of at least 1 pixel")
    x1, x2 = _to_unit(boxes[..., 0::2], width, crop.cx, crop.w)
    y1, y2 = _to_unit(boxes[..., 1::2], height, crop.cy, crop.h)
    if flip:
        x1, x2 = 1 - x2, 1 - x1
    result = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=-1)
    # A comparison with NaN is False, so absent boxes fall out here too.
    present = (result[..., 2] > _SMALLEST_SIDE) & (result[..., 3] > _SMALLEST_SIDE)
    return np.where(present[..., None], result, 0.0).astype(np.float32)


def _to_unit(
    ends: NDArray[np.float64], length_pixels: int, centre: float, side: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two ends (..., 2) of a pixel interval as fractions of the crop along one axis, clipped."""
    unit = np.clip((ends / length_pixels - (centre - side / 2)) / side, 0.0, 1.0)
    return unit[..., 0], unit[..., 1]


def pictures_to_crop(pictures: NDArray[Any], crop: Crop, flip: bool) -> NDArray[Any]:
    """Carry pictures over the full frame, such as masks, into a crop by area average, then mirror them.

    A cell of the result is the mean of what it covers, each picture element counting by the share of the cell that it
    fills; what lies outside of the frame counts as 0. The elements of a picture need not be square: 100 × 100 over a
    frame of 320 × 240 are 3.2 × 2.4 pixels each.

    Args:
        pictures: (..., rows, columns) of any number of rows and columns.
        crop: the region that is kept.
        flip: True mirrors left and right, after the crop.

    Returns:
        (..., h, w) of the same type, rounded where that is an integer.
    """
    rows = _area_shares(pictures.shape[-2], crop.cy, crop.h, PICTURE_SIZES["h"])
    columns = _area_shares(pictures.shape[-1], crop.cx, crop.w, PICTURE_SIZES["w"])
    if flip:
        columns = columns[::-1]
    seen = rows @ pictures.astype(np.float64) @ columns.T
    if np.issubdtype(pictures.dtype, np.integer):
        seen = np.rint(seen)
    return seen.astype(pictures.dtype)


def _area_shares(num_elements: int, centre: float, side: float, num_cells: int) -> NDArray[np.float64]:
    """Return (cells, elements): the share of each cell of a crop that each element of the frame fills, on one axis."""
    cells = centre - side / 2 + side * np.arange(num_cells + 1) / num_cells
    elements = np.arange(num_elements + 1) / num_elements
    low = np.maximum(cells[:-1, None], elements[None, :-1])
    high = np.minimum(cells[1:, None], elements[None, 1:])
    shares: NDArray[np.float64] = (high - low).clip(min=0) * num_cells / side
    return shares


def center_crop(frame_size: tuple[int, int], fraction: float) -> Crop:
    """Return the centred square whose side is `fraction` of the frame's short side.

    "Short side 256, centre crop 224" is `center_crop(frame_size, 224 / 256)`.

    Args:
        frame_size: (width, height) in pixels.
        fraction: side of the square over the short side, in (0, 1].

    Raises:
        InputError: `fraction` is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise InputError(f"centre crop fraction is {fraction:g}; expected a number in (0, 1]")
    width, height = frame_size
    side = fraction * min(width, height)
    return Crop(0.5, 0.5, side / width, side / height)


def side_crop(frame_size: tuple[int, int], place: float) -> Crop:
    """Return the square of the whole short side, from the start (place 0) to the end (1) of the long side.

    Args:
        frame_size: (width, height) in pixels.
        place: in [0, 1].
    """
    return _square_at(frame_size, 1.0, place, place)


def random_crop(rng: np.random.Generator, min_scale: float = 0.7) -> Crop:
    """Draw a crop of random scale, position and slightly changed aspect ratio inside the frame.

    The scale s is uniform in [min_scale, 1] and the aspect factor a log-uniform in [1 / 1.1, 1.1]; the crop is s·√a of
    the frame's width by s/√a of its height, both at most 1, at a uniform position. Four numbers are drawn from `rng`,
    always.

    Args:
        rng: source of the draws.
        min_scale: smallest scale, in (0, 1].

    Raises:
        InputError: `min_scale` is out of range.
    """
    if not 0 < min_scale <= 1:
        raise InputError(f"random crop has min_scale {min_scale:g}; expected min_scale in (0, 1]")
    scale_draw, aspect_draw, x_draw, y_draw = rng.random(4)
    scale = min_scale + (1 - min_scale) * scale_draw
    root_aspect = _LARGEST_ASPECT ** (aspect_draw - 0.5)
    w, h = min(scale * root_aspect, 1.0), min(scale / root_aspect, 1.0)
    return Crop(w / 2 + (1 - w) * x_draw, h / 2 + (1 - h) * y_draw, w, h)


def jittered_square(rng: np.random.Generator, frame_size: tuple[int, int]) -> Crop:
    """Draw a square as if 224 pixels were cut from a frame whose short side was scaled to 256 … 320 pixels.

    Source: Simonyan and Zisserman 2015 as used by Wang and Gupta 2018, §6. Three numbers are drawn, always.

    Args:
        rng: source of the draws.
        frame_size: (width, height) in pixels.
    """
    short_draw, x_draw, y_draw = rng.random(3)
    return _square_at(frame_size, 224 / (256 + 64 * short_draw), x_draw, y_draw)


def multi_scale_square(rng: np.random.Generator, frame_size: tuple[int, int]) -> Crop:
    """Draw a square of 1, 0.875, 0.75 or 0.66 of the short side, at one of 3 × 3 places from border to border.

    Source: Wang et al. 2016 (temporal segment networks), §3.3. Differs: squares only, and 9 places. Three numbers are
    drawn, always.

    Args:
        rng: source of the draws.
        frame_size: (width, height) in pixels.
    """
    scale, x, y = int(rng.integers(len(_SCALES))), int(rng.integers(3)), int(rng.integers(3))
    return _square_at(frame_size, _SCALES[scale], x / 2, y / 2)


def _square_at(frame_size: tuple[int, int], fraction: float, x: float, y: float) -> Crop:
    """Return the square of this share of the short side; x and y in [0, 1] say where between the borders it lies."""
    side = fraction * min(frame_size)
    w, h = side / frame_size[0], side / frame_size[1]
    return Crop(w / 2 + (1 - w) * x, h / 2 + (1 - h) * y, w, h)
