"""The picture type that objects and hands are drawn into."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CANVAS = 160
"""Side of a sprite's square canvas in pixels."""

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
"""Blue, green, red, as OpenCV orders them."""


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """A pre-drawn picture with transparency.

    Args:
        image: (160, 160, 4) uint8, blue, green, red and alpha, colours already multiplied by alpha.
        hull: (M, 2) canvas points (x, y) whose convex hull holds every opaque pixel.
        anchor: the canvas point that a track's position places: an object's centre, a hand's fingertips.
    """

    image: Image
    hull: FloatArray
    anchor: tuple[float, float]

    def extent(self) -> tuple[float, float]:
        """Return width and height of the opaque part in canvas pixels."""
        width, height = np.ptp(self.hull, axis=0)
        return float(width), float(height)


def as_image(array: NDArray[np.generic]) -> Image:
    """Return `array` as uint8, without copying when it already is."""
    return np.asarray(array, dtype=np.uint8)


def polygon_hull(mask: Image) -> FloatArray:
    """Return the convex hull of the pixels above one half in `mask` as (M, 2) points (x, y)."""
    points = cv2.findNonZero((mask > 127).astype(np.uint8))
    assert points is not None
    return np.asarray(cv2.convexHull(points)[:, 0, :], dtype=np.float64)


def premultiply(colour: Image, alpha: Image) -> Image:
    """Return the (h, w, 4) premultiplied picture of `colour` (h, w, 3) under `alpha` (h, w)."""
    scaled = cv2.multiply(colour, cv2.merge([alpha, alpha, alpha]), scale=1 / 255)
    return as_image(np.dstack([scaled, alpha]))


def cut(image: Image, mask: Image) -> Image:
    """Return the part of a premultiplied `image` that `mask` (0 to 255) lets through."""
    return as_image(cv2.multiply(image, cv2.merge([mask] * 4), scale=1 / 255))


def over(front: Image, back: Image) -> Image:
    """Lay a premultiplied picture over another of the same shape, or over an opaque (h, w, 3) one."""
    clear = cv2.bitwise_not(np.ascontiguousarray(front[..., 3]))
    channels = back.shape[2]
    hidden = cv2.multiply(back, cv2.merge([clear] * channels), scale=1 / 255)
    return as_image(cv2.add(hidden, np.ascontiguousarray(front[..., :channels])))


def paint_over(image: Image, coat: Image) -> Image:
    """Lay premultiplied `coat` over `image`, but only where `image` is opaque."""
    return over(cut(coat, np.ascontiguousarray(image[..., 3])), image)
