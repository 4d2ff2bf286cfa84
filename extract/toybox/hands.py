"""Drawing of hands: a palm, four fingers and a thumb, fingertips up on the canvas."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ifcar.extract.toybox.looks import shade
from ifcar.extract.toybox.sprites import CANVAS, Colour, Image, Sprite, as_image, polygon_hull, premultiply

SKIN_TONES: tuple[Colour, ...] = (
    (170, 195, 240),
    (135, 170, 225),
    (105, 145, 205),
    (75, 110, 170),
    (50, 75, 120),
    (38, 55, 88),
)
SLEEVES: tuple[Colour, ...] = ((60, 60, 60), (120, 80, 50), (180, 180, 175), (70, 110, 80), (70, 80, 140))

_OVERSAMPLING = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class HandStyle:
    """What distinguishes the hands of one clip from those of another.

    Args:
        skin: skin colour.
        sleeve: colour of the arm behind the wrist.
        spread: angle between neighbouring fingers in radians.
    """

    skin: Colour
    sleeve: Colour
    spread: float


def random_hand(rng: np.random.Generator) -> HandStyle:
    """Return a hand style drawn from `rng`."""
    return HandStyle(
        skin=SKIN_TONES[int(rng.integers(len(SKIN_TONES)))],
        sleeve=SLEEVES[int(rng.integers(len(SLEEVES)))],
        spread=float(rng.uniform(0.12, 0.2)),
    )


def draw_hand(style: HandStyle, is_left: bool) -> Sprite:
    """Draw a left or right hand, seen from its back, whose anchor lies a little below its fingertips."""
    side = CANVAS * _OVERSAMPLING
    alpha = np.zeros((side, side), np.uint8)
    colour = np.full((side, side, 3), style.skin, np.uint8)
    _draw_parts(alpha, colour, style)
    image = premultiply(as_image(colour), as_image(alpha))
    if is_left:
        image = as_image(image[:, ::-1].copy())
    small = as_image(cv2.resize(image, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA))
    return Sprite(image=small, hull=polygon_hull(small[..., 3]), anchor=(CANVAS / 2, CANVAS * 0.14))


def _draw_parts(alpha: Image, colour: Image, style: HandStyle) -> None:
    unit = CANVAS * _OVERSAMPLING / 100
    edge = shade(style.skin, 0.62)
    palm = (int(50 * unit), int(66 * unit))
    lengths = (38, 45, 43, 33)
    for finger, length in enumerate(lengths):
        angle = (finger - 1.4) * style.spread
        root = (palm[0] + (finger - 1.5) * 9 * unit, palm[1] - 12 * unit)
        tip = (root[0] + np.sin(angle) * length * unit, root[1] - np.cos(angle) * length * unit)
        _limb(alpha, colour, root, tip, int(9 * unit), edge)
    _limb(alpha, colour, (palm[0] - 12 * unit, palm[1] + 6 * unit), (22 * unit, 44 * unit), int(10 * unit), edge)
    for target, value in ((alpha, 255), (colour, style.skin)):
        cv2.ellipse(target, palm, (int(20 * unit), int(20 * unit)), 0, 0, 360, value, -1, cv2.LINE_AA)
    wrist = np.array([[-14, 8], [14, 8], [12, 32], [-12, 32]]) * unit + palm
    for target, value in ((alpha, 255), (colour, style.skin)):
        cv2.fillConvexPoly(target, np.round(wrist).astype(np.int32), value, cv2.LINE_AA)


def _limb(
    alpha: Image, colour: Image, root: tuple[float, float], tip: tuple[float, float], width: int, edge: Colour
) -> None:
    start, end = (int(root[0]), int(root[1])), (int(tip[0]), int(tip[1]))
    skin = (int(colour[0, 0, 0]), int(colour[0, 0, 1]), int(colour[0, 0, 2]))
    cv2.line(alpha, start, end, 255, width, cv2.LINE_AA)
    cv2.line(colour, start, end, edge, width, cv2.LINE_AA)
    cv2.line(colour, start, end, skin, max(width - 5, 1), cv2.LINE_AA)
