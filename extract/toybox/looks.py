"""The 24 objects of the toybox in two groups, and their drawing.

Every shape and every colour occurs once in each group, so neither group is told apart by one of them alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ifcar.extract.toybox.sprites import CANVAS, Colour, Image, Sprite, as_image, polygon_hull, premultiply

Group = Literal["A", "B"]

COLOURS: dict[str, Colour] = {
    "red": (45, 40, 205),
    "blue": (215, 105, 40),
    "green": (60, 165, 50),
    "yellow": (40, 215, 240),
    "orange": (30, 130, 245),
    "white": (238, 240, 242),
    "brown": (45, 75, 125),
    "teal": (165, 170, 30),
    "black": (42, 38, 38),
    "grey": (140, 136, 132),
    "violet": (165, 65, 95),
    "navy": (110, 45, 25),
}
SHAPES = ("mug", "box", "bottle", "book", "ball", "bowl", "jar", "pillow", "plate", "shoe", "lamp", "can")
TEXTURES = ("stripes", "dots", "checks", "band")

_OVERSAMPLING = 2
_SIDE = CANVAS * _OVERSAMPLING
_REACH = 0.75
"""The longest side of an object as a fraction of the canvas."""

Outline = tuple[tuple[float, float], ...]


def _mirrored(*right: tuple[float, float]) -> Outline:
    """Return the outline of what is the same left and right, from its right half from top to bottom."""
    left = [(-x, y) for x, y in right]
    return (left[0], *right, *left[:0:-1])


_OUTLINES: dict[str, Outline] = {
    "box": ((-1, -0.75), (-0.75, -1), (1, -1), (1, 0.7), (0.75, 1), (-1, 1)),
    "bottle": _mirrored((0.2, -1), (0.2, -0.55), (0.6, -0.25), (0.6, 1)),
    "book": _mirrored((0.75, -1), (0.75, 1)),
    "bowl": _mirrored((1, -0.7), (0.92, -0.1), (0.68, 0.45), (0.4, 0.7)),
    "jar": _mirrored((0.45, -1), (0.45, -0.75), (0.7, -0.5), (0.7, 0.85), (0.55, 1)),
    "pillow": (
        *((-1, -0.8), (-0.5, -0.68), (0.5, -0.68), (1, -0.8), (0.88, 0)),
        *((1, 0.8), (0.5, 0.68), (-0.5, 0.68), (-1, 0.8), (-0.88, 0)),
    ),
    "shoe": ((-1, -0.85), (-0.3, -0.85), (-0.15, -0.35), (0.5, -0.15), (0.92, 0.15), (1, 0.7), (-1, 0.7)),
    "lamp": _mirrored((0.4, -1), (0.8, 0.15), (0.15, 0.15), (0.15, 0.75), (0.55, 0.8), (0.55, 1)),
    "can": ((-0.65, -0.9), (-0.5, -1), (0.5, -1), (0.65, -0.9), (0.65, 0.9), (0.5, 1), (-0.5, 1), (-0.65, 0.9)),
    "mug": ((-0.85, -0.85), (0.5, -0.85), (0.45, 0.85), (-0.8, 0.85)),
}
_ELLIPSES: dict[str, tuple[float, float]] = {"ball": (0.92, 0.92), "plate": (1.0, 0.75)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How one object looks.

    Args:
        noun: its name in annotations, for example "red mug".
        group: the object group of the compositional protocol.
        shape: one of `SHAPES`.
        colour: a key of `COLOURS`.
        texture: one of `TEXTURES`, drawn in a lighter or darker tone.
    """

    noun: str
    group: Group
    shape: str
    colour: str
    texture: str


def _all_looks() -> tuple[Look, ...]:
    names = tuple(COLOURS)
    looks = []
    for group, colour_shift, texture_shift in (("A", 0, 0), ("B", 5, 2)):
        for number, shape in enumerate(SHAPES):
            colour = names[(number + colour_shift) % len(names)]
            texture = TEXTURES[(number + texture_shift) % len(TEXTURES)]
            kind: Group = "A" if group == "A" else "B"
            looks.append(Look(noun=f"{colour} {shape}", group=kind, shape=shape, colour=colour, texture=texture))
    return tuple(looks)


LOOKS = _all_looks()
LOOK_BY_NOUN = {look.noun: look for look in LOOKS}


def nouns_of(group: Group) -> tuple[str, ...]:
    """Return the names of the objects in `group`."""
    return tuple(look.noun for look in LOOKS if look.group == group)


def shade(colour: Colour, factor: float) -> Colour:
    """Return `colour` made darker (factor below 1) or lighter (above 1)."""
    if factor <= 1:
        return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))
    mix = min(factor - 1, 1.0)
    blue, green, red = (int(value + (255 - value) * mix) for value in colour)
    return blue, green, red


def draw_object(look: Look, tilt_degrees: float) -> Sprite:
    """Draw `look`, turned by `tilt_degrees`, into a sprite whose anchor is the middle of its box."""
    alpha = _silhouette(look.shape)
    colour = _surface(look, alpha)
    turn = cv2.getRotationMatrix2D((_SIDE / 2, _SIDE / 2), tilt_degrees, 1.0)
    image = cv2.warpAffine(premultiply(colour, alpha), turn, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR)
    small = as_image(cv2.resize(image, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA))
    hull = polygon_hull(small[..., 3])
    middle = (hull.min(axis=0) + hull.max(axis=0)) / 2
    return Sprite(image=small, hull=hull, anchor=(float(middle[0]), float(middle[1])))


def _silhouette(shape: str) -> Image:
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    half = _SIDE * _REACH / 2
    centre = (_SIDE // 2, _SIDE // 2)
    if shape in _ELLIPSES:
        radius_x, radius_y = _ELLIPSES[shape]
        cv2.ellipse(mask, centre, (int(radius_x * half), int(radius_y * half)), 0, 0, 360, 255, -1, cv2.LINE_AA)
        return mask
    outline = np.array(_OUTLINES[shape]) * half + _SIDE / 2
    if shape == "mug":
        handle = (int(_SIDE / 2 + 0.5 * half), _SIDE // 2)
        cv2.ellipse(mask, handle, (int(0.4 * half), int(0.5 * half)), 0, -90, 90, 255, int(0.2 * half), cv2.LINE_AA)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _surface(look: Look, alpha: Image) -> Image:
    base = COLOURS[look.colour]
    tone = shade(base, 1.55) if sum(base) < 330 else shade(base, 0.5)
    surface = np.full((_SIDE, _SIDE, 3), base, np.uint8)
    _draw_texture(surface, look.texture, tone)
    light = np.linspace(1.12, 0.78, _SIDE, dtype=np.float32)[None, :, None]
    lit = as_image(np.clip(surface * light, 0, 255).astype(np.uint8))
    contours, _ = cv2.findContours((alpha > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(lit, contours, -1, shade(base, 0.45), 3 * _OVERSAMPLING, cv2.LINE_AA)
    return lit


def _draw_texture(surface: Image, texture: str, tone: Colour) -> None:
    side = _SIDE
    if texture == "stripes":
        for x in range(-side, side, side // 7):
            cv2.line(surface, (x, side), (x + side, 0), tone, side // 22, cv2.LINE_AA)
    elif texture == "dots":
        for row, y in enumerate(range(side // 12, side, side // 8)):
            for x in range(side // 12 + (row % 2) * side // 14, side, side // 7):
                cv2.circle(surface, (x, y), side // 32, tone, -1, cv2.LINE_AA)
    elif texture == "checks":
        step = side // 10
        for row in range(10):
            for column in range(row % 2, 10, 2):
                corner = (column * step, row * step)
                cv2.rectangle(surface, corner, (corner[0] + step, corner[1] + step), tone, -1)
    else:
        cv2.rectangle(surface, (0, int(side * 0.42)), (side, int(side * 0.64)), tone, -1)
        cv2.circle(surface, (int(side * 0.5), int(side * 0.53)), side // 14, shade(tone, 0.5), -1, cv2.LINE_AA)
