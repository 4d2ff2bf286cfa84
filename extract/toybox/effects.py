"""What the appearance-only actions do to an object's picture, all inside the object's own box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from ifcar.extract.toybox.sprites import CANVAS, FloatArray, Image, Sprite, as_image, cut, over, paint_over, premultiply

EffectName = Literal["none", "tear", "fold", "spin", "paint", "hole"]

_SIZE = (CANVAS, CANVAS)
_PAPER_WHITE = (250, 250, 250, 255)
_CREAM = np.array((190, 232, 250), np.float64)
_COAT = (230, 0, 255, 255)
_SPIN_STEP_DEGREES = 62.0
_SPIN_COPIES = 6


def apply_effect(sprite: Sprite, name: EffectName, progress: FloatArray, frame: int) -> Image:
    """Return the sprite's picture at `frame` of a clip.

    Args:
        sprite: the untouched object.
        name: which effect.
        progress: (F,) values from 0 (untouched) to 1 (finished), not decreasing; not looked at without an effect.
        frame: 0-based frame number.

    Returns:
        (160, 160, 4) uint8, premultiplied.
    """
    if name == "none" or (amount := float(progress[frame])) <= 0.0:
        return sprite.image
    if name == "spin":
        return _spin(sprite, amount, float(progress[: frame + 1].sum()) * _SPIN_STEP_DEGREES)
    return _EFFECTS[name](sprite, amount)


def _bounds(sprite: Sprite) -> tuple[float, float, float, float]:
    left, top = sprite.hull.min(axis=0)
    right, bottom = sprite.hull.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _warp(image: Image, matrix: FloatArray) -> Image:
    return as_image(cv2.warpAffine(image, matrix, _SIZE, flags=cv2.INTER_LINEAR))


def _tear(sprite: Sprite, amount: float) -> Image:
    """Split the object down the middle into two halves that tilt apart, with white torn edges."""
    left, _, right, bottom = _bounds(sprite)
    middle, width = (left + right) / 2, right - left
    ys = np.linspace(0, CANVAS, 15)
    xs = middle + np.where(np.arange(15) % 2 == 0, -5.0, 5.0)
    edge = np.stack([xs, ys], axis=1)
    result = np.zeros_like(sprite.image)
    for side in (-1, 1):
        corners = np.array([[middle + side * CANVAS, CANVAS], [middle + side * CANVAS, 0]])
        mask = np.zeros(_SIZE, np.uint8)
        outline = np.round(np.concatenate([edge, corners]) * 16).astype(np.int32)
        cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, 4)
        white = np.zeros((*_SIZE, 4), np.uint8)
        path = np.round(edge * 16).astype(np.int32)
        cv2.polylines(white, [path], False, _PAPER_WHITE, 19, cv2.LINE_AA, 4)
        half = cut(paint_over(sprite.image, as_image(white)), as_image(mask))
        turn = cv2.getRotationMatrix2D((middle, bottom), -side * 10 * amount, 1 - 0.2 * amount)
        turn[0, 2] += side * (0.15 * width + 2) * amount
        result = as_image(cv2.add(result, _warp(half, np.asarray(turn, np.float64))))
    return result


def _fold(sprite: Sprite, amount: float) -> Image:
    """Turn the right half over onto the left one; its underside is cream on every object."""
    left, _, right, _ = _bounds(sprite)
    crease = round((left + right) / 2)
    mask = np.zeros(_SIZE, np.uint8)
    mask[:, :crease] = 255
    flat = cut(sprite.image, mask)
    flap = cut(sprite.image, as_image(cv2.bitwise_not(mask)))
    cosine, lift = float(np.cos(np.pi * amount)), 0.3 * float(np.sin(np.pi * amount))
    if cosine < 0:
        tint = np.clip(_CREAM * (1.0 - 0.25 * lift), 0, 255).astype(np.uint8)
        flap = premultiply(np.broadcast_to(tint, (*_SIZE, 3)).copy(), np.ascontiguousarray(flap[..., 3]))
        lines = np.zeros((*_SIZE, 4), np.uint8)
        for x in range(crease + 9, CANVAS, 12):
            cv2.line(lines, (x, 0), (x, CANVAS), (150, 195, 215, 255), 2)
        flap = paint_over(flap, as_image(lines))
    matrix = np.array([[cosine, 0.0, crease * (1 - cosine)], [-lift, 1.0, lift * crease]])
    return over(_warp(flap, matrix), flat)


def _spin(sprite: Sprite, amount: float, angle: float) -> Image:
    """Average several turned copies and add white arcs that turn with the object."""
    left, top, right, bottom = _bounds(sprite)
    centre = ((left + right) / 2, (top + bottom) / 2)
    total = np.zeros((*_SIZE, 4), np.float32)
    for copy in range(_SPIN_COPIES):
        turn = cv2.getRotationMatrix2D(centre, angle + copy * 11 * amount, 1.0)
        cv2.accumulate(_warp(sprite.image, np.asarray(turn, np.float64)), total)
    blurred = as_image(np.round(total / _SPIN_COPIES).astype(np.uint8))
    arcs = np.zeros((*_SIZE, 4), np.uint8)
    value = int(255 * min(1.0, 1.6 * amount))
    where = (int(centre[0] * 16), int(centre[1] * 16))
    for ring, radius in enumerate((0.16, 0.3, 0.44)):
        axes = (int(radius * (right - left) * 16), int(radius * (bottom - top) * 16))
        for begin in (70 * ring - angle, 70 * ring - angle + 180):
            cv2.ellipse(arcs, where, axes, 0, begin, begin + 120, (value,) * 4, 8, cv2.LINE_AA, 4)
    return over(as_image(arcs), blurred)


def _paint(sprite: Sprite, amount: float) -> Image:
    """Let a magenta coat with a wavy edge run down the object."""
    _, top, _, bottom = _bounds(sprite)
    level = top - 8 + amount * (bottom - top + 18)
    xs = np.linspace(0, CANVAS, 41)
    ys = level + 5 * np.sin(xs / 7.0)
    outline = np.concatenate([np.stack([xs, ys], axis=1), [[CANVAS, -20.0], [0.0, -20.0]]])
    coat = np.zeros((*_SIZE, 4), np.uint8)
    cv2.fillPoly(coat, [np.round(outline * 16).astype(np.int32)], _COAT, cv2.LINE_AA, 4)
    return paint_over(sprite.image, as_image((coat * 0.9).astype(np.uint8)))


def _hole(sprite: Sprite, amount: float) -> Image:
    """Open a black hole with a ragged pale rim in the middle of the object."""
    left, top, right, bottom = _bounds(sprite)
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ragged = np.where(np.arange(24) % 2 == 0, 1.0, 0.84)[:, None]
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * ragged
    radii = np.array([right - left, bottom - top]) * 0.47 * amount**0.6
    picture = np.zeros((*_SIZE, 4), np.uint8)
    for scale, colour in ((1.0, (215, 235, 240, 255)), (0.8, (8, 8, 8, 255))):
        outline = np.round((circle * radii * scale + centre) * 16).astype(np.int32)
        cv2.fillPoly(picture, [outline], colour, cv2.LINE_AA, 4)
    return paint_over(sprite.image, as_image(picture))


_EFFECTS: dict[str, Callable[[Sprite, float], Image]] = {"tear": _tear, "fold": _fold, "paint": _paint, "hole": _hole}
