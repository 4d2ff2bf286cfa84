"""How objects and hands move: one function for each family of actions, in frame pixels before camera shake.

Every function takes the clip's generator, the time axis u (F,) from 0 to 1 and the sizes of the acting objects.
Opposite actions share one function and differ in a flag, so that all else stays distributed alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ifcar.extract.toybox.sprites import FloatArray

OFF_FRAME = 260.0
"""A distance that takes a hand or an object out of the frame."""
GRIP = 13.0
"""How far the fingertips reach over the edge of what they touch."""

Rng = np.random.Generator
Size = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ObjectPath:
    """The way of one object.

    Args:
        centre: (F, 2) middle of the object.
        depth: drawing order; higher is nearer to the camera.
        progress: (F,) progress of the appearance effect from 0 to 1.
    """

    centre: FloatArray
    depth: int
    progress: FloatArray


@dataclass(frozen=True, kw_only=True)
class HandPath:
    """The way of one hand.

    Args:
        tip: (F, 2) position of the fingertips.
        out: unit vector from the fingertips to the arm.
        depth: drawing order; higher is nearer to the camera.
    """

    tip: FloatArray
    out: FloatArray
    depth: int


@dataclass(frozen=True, kw_only=True)
class Motion:
    """All ways of a clip's acting objects, in the order of its placeholders, and hands."""

    objects: tuple[ObjectPath, ...]
    hands: tuple[HandPath, ...]


MotionFunction = Callable[[Rng, FloatArray, Sequence[Size]], Motion]


def ease(u: FloatArray, begin: float, end: float) -> FloatArray:
    """Return a smooth step from 0 before `begin` to 1 after `end`."""
    x = np.clip((u - begin) / (end - begin), 0.0, 1.0)
    return np.asarray(x * x * (3 - 2 * x))


def line_motion(axis: str, forward: bool) -> MotionFunction:
    """Return the motion of one object pushed along the x or y axis; backward is the same line reversed."""

    def motion(rng: Rng, u: FloatArray, sizes: Sequence[Size]) -> Motion:
        if axis == "x":
            step = np.array([rng.uniform(85, 130), rng.uniform(-12, 12)])
            middle = np.array([rng.uniform(135, 185), rng.uniform(85, 150)])
        else:
            step = np.array([rng.uniform(-12, 12), rng.uniform(70, 100)])
            middle = np.array([rng.uniform(100, 220), rng.uniform(100, 130)])
        begin, end = _times(rng)
        amount = ease(u, begin, end)[:, None]
        path = middle + step * ((amount - 0.5) if forward else (0.5 - amount))
        hand = _hand_on(rng, u, path, sizes[0], _random_out(rng), (begin, end), leaves=True)
        return Motion(objects=(_object(path),), hands=(hand,))

    return motion


def pair_motion(closer: bool) -> MotionFunction:
    """Return the motion of two objects, each moved by a hand; apart is the way together reversed."""

    def motion(rng: Rng, u: FloatArray, sizes: Sequence[Size]) -> Motion:
        begin, end = _times(rng)
        touching = (sizes[0][0] + sizes[1][0]) / 2
        near, far = touching + rng.uniform(2, 12), touching + rng.uniform(75, 105)
        angle = rng.uniform(-0.22, 0.22)
        axis = np.array([np.cos(angle), np.sin(angle)])
        if rng.random() < 0.5:
            axis = -axis
        middle = np.array([rng.uniform(145, 175), rng.uniform(85, 135)])
        amount = ease(u, begin, end)[:, None]
        gap = far + (near - far) * (amount if closer else 1 - amount)
        paths = (middle - axis * gap / 2, middle + axis * gap / 2)
        hands = []
        for path, size, side in zip(paths, sizes, (-axis[0], axis[0]), strict=True):
            out = np.array([np.sign(side) * rng.uniform(0.3, 0.8), 1.0])
            hands.append(_hand_on(rng, u, path, size, out / np.linalg.norm(out), (begin, end), leaves=True))
        return Motion(objects=(_object(paths[0]), _object(paths[1])), hands=tuple(hands))

    return motion


def in_place_motion(rng: Rng, u: FloatArray, sizes: Sequence[Size]) -> Motion:
    """Return the one motion that all appearance-only actions share: a hand works on an object that stays."""
    begin, end = _times(rng)
    held = ease(u, begin, begin + 0.08) * (1 - ease(u, end, end + 0.08))
    phase = rng.uniform(0, 2 * np.pi, 4)
    wave = np.stack([np.sin(19 * u + phase[0]), np.sin(23 * u + phase[1])], axis=1) * held[:, None]
    middle = np.array([rng.uniform(115, 205), rng.uniform(85, 140)])
    path = middle + 2.5 * wave
    begin_effect = rng.uniform(0.25, 0.35)
    progress = np.clip((u - begin_effect) / (rng.uniform(0.8, 0.9) - begin_effect), 0.0, 1.0)
    hand = _hand_on(rng, u, path, sizes[0], _random_out(rng), (begin, end), leaves=True)
    shiver = np.stack([np.sin(31 * u + phase[2]), np.sin(27 * u + phase[3])], axis=1) * held[:, None]
    moved = HandPath(tip=hand.tip + 4.0 * shiver, out=hand.out, depth=hand.depth)
    return Motion(objects=(ObjectPath(centre=path, depth=2, progress=progress),), hands=(moved,))


def lift_motion(pretend: bool) -> MotionFunction:
    """Return the motion of a hand that reaches for an object and rises, with the object or without it."""

    def motion(rng: Rng, u: FloatArray, sizes: Sequence[Size]) -> Motion:
        begin, end = _times(rng)
        rest = np.array([rng.uniform(100, 220), rng.uniform(135, 170)])
        rise = np.array([rng.uniform(-25, 25), -rng.uniform(95, 135)])
        lifted = rest + rise * ease(u, begin, end)[:, None]
        path = np.broadcast_to(rest, lifted.shape).copy() if pretend else lifted
        hand = _hand_on(rng, u, lifted, sizes[0], _random_out(rng), (begin, end), leaves=False)
        return Motion(objects=(_object(path),), hands=(hand,))

    return motion


def take_one_motion(rng: Rng, u: FloatArray, sizes: Sequence[Size]) -> Motion:
    """Return the motion of a hand that takes the first of several things out of the frame."""
    begin, end = _times(rng)
    count = len(sizes)
    pitch = sizes[0][0] + rng.uniform(6, 22)
    middle = np.array([rng.uniform(135, 185), rng.uniform(85, 130)])
    places = [middle + np.array([(k - (count - 1) / 2) * pitch, rng.uniform(-10, 10)]) for k in range(count)]
    order = rng.permutation(count)
    out = _random_out(rng)
    away = out * OFF_FRAME * ease(u, begin + 0.05, end + 0.1)[:, None]
    paths = [np.broadcast_to(places[k], (len(u), 2)).copy() for k in order]
    paths[0] = paths[0] + away
    hand = _hand_on(rng, u, paths[0], sizes[0], out, (begin, end), leaves=False)
    return Motion(objects=tuple(_object(path) for path in paths), hands=(hand,))


def bring_motion(relation: str) -> MotionFunction:
    """Return the motion of a hand that brings an object to another: "next to", "behind" or "in front of".

    Behind and in front share all positions and differ only in which of the two hides the other.
    """

    def motion(rng: Rng, u: FloatArray, sizes: Sequence[Size]) -> Motion:
        begin = rng.uniform(0.05, 0.12)
        end = rng.uniform(0.5, 0.62)
        goal = np.array([rng.uniform(135, 185), rng.uniform(85, 135)])
        side = -1.0 if rng.random() < 0.5 else 1.0
        touching = (sizes[0][0] + sizes[1][0]) / 2
        share = rng.uniform(0.45, 0.6)
        across = touching + rng.uniform(3, 12) if relation == "next to" else touching * share
        final = goal + np.array([side * across, rng.uniform(-0.15, 0.15) * sizes[1][1]])
        shift = np.array([side * across / 2, 0.0])
        out = _random_out(rng)
        path = final - shift + out * OFF_FRAME * (1 - ease(u, begin, end))[:, None]
        still = np.broadcast_to(goal - shift, path.shape).copy()
        hand = _hand_on(rng, u, path, sizes[0], out, (-1.0, end), leaves=True)
        behind = relation == "behind"
        moved = HandPath(tip=hand.tip, out=hand.out, depth=2 if behind else 5)
        objects = (_object(path, depth=1 if behind else 4), _object(still, depth=3))
        return Motion(objects=objects, hands=(moved,))

    return motion


def approach_motion(rng: Rng, u: FloatArray, sizes: Sequence[Size]) -> Motion:
    """Return the motion of a hand that moves the first object closer to the second, which stays."""
    begin, end = _times(rng)
    touching = (sizes[0][0] + sizes[1][0]) / 2
    near, far = touching + rng.uniform(2, 12), touching + rng.uniform(75, 105)
    side = -1.0 if rng.random() < 0.5 else 1.0
    goal = np.array([160 - side * far / 2, rng.uniform(85, 135)])
    gap = far + (near - far) * ease(u, begin, end)
    path = goal + np.stack([side * gap, np.full(len(u), rng.uniform(-20, 20))], axis=1)
    still = np.broadcast_to(goal, path.shape).copy()
    hand = _hand_on(rng, u, path, sizes[0], _random_out(rng), (begin, end), leaves=True)
    return Motion(objects=(_object(path), _object(still)), hands=(hand,))


def idle_hand(rng: Rng, u: FloatArray) -> HandPath:
    """Return a hand that rests at the lower border and touches nothing."""
    side = -1.0 if rng.random() < 0.5 else 1.0
    rest = np.array([160 + side * rng.uniform(95, 130), rng.uniform(195, 215)])
    out = np.array([side * 0.4, 1.0])
    begin = rng.uniform(-0.3, 0.3)
    enter = (1 - ease(u, begin, begin + 0.2))[:, None] * OFF_FRAME
    sway = 3 * np.sin(np.outer(9 * u, [1.0, 1.3]) + rng.uniform(0, 6, 2))
    out = out / np.linalg.norm(out)
    return HandPath(tip=rest + sway + out * enter, out=out, depth=8)


def _object(path: FloatArray, depth: int = 2) -> ObjectPath:
    return ObjectPath(centre=path, depth=depth, progress=np.zeros(len(path)))


def _times(rng: Rng) -> tuple[float, float]:
    """Return when contact begins to move things and when it ends."""
    return float(rng.uniform(0.22, 0.3)), float(rng.uniform(0.68, 0.78))


def _random_out(rng: Rng) -> FloatArray:
    angle = rng.uniform(0.15 * np.pi, 0.85 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _hand_on(
    rng: Rng,
    u: FloatArray,
    path: FloatArray,
    size: Size,
    out: FloatArray,
    times: tuple[float, float],
    *,
    leaves: bool,
) -> HandPath:
    """Return a hand whose fingertips stay on the edge of what moves along `path`.

    Args:
        rng: the clip's generator.
        u: (F,) time axis.
        path: (F, 2) middle of what the hand holds on to.
        size: width and height of what the hand holds.
        out: unit vector along the arm.
        times: when the hand has arrived, and when it lets go.
        leaves: whether the hand withdraws after letting go.
    """
    arrive, release = times
    lead, tail = rng.uniform(0.14, 0.2), rng.uniform(0.12, 0.18)
    reach = 1.0 / max(2 * abs(out[0]) / size[0], 2 * abs(out[1]) / size[1])
    away = 1 - ease(u, arrive - lead, arrive)
    if leaves:
        away = away + ease(u, release + 0.04, release + 0.04 + tail)
    offset = out * (max(reach - GRIP, 4.0) + OFF_FRAME * away)[:, None]
    return HandPath(tip=path + offset, out=out, depth=6)
