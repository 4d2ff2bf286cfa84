"""One clip as data: which instances there are, where each is in every frame, and how the camera shakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ifcar.extract.toybox import motion as motions
from ifcar.extract.toybox.actions import Action
from ifcar.extract.toybox.effects import EffectName
from ifcar.extract.toybox.hands import HandStyle, draw_hand, random_hand
from ifcar.extract.toybox.looks import LOOK_BY_NOUN, draw_object
from ifcar.extract.toybox.motion import HandPath, Motion, Rng, Size
from ifcar.extract.toybox.sprites import FloatArray, Sprite

WIDTH, HEIGHT = 320, 240
MAX_INSTANCES = 4
MIN_FRAMES, MAX_FRAMES = 24, 48
HAND_SCALE = 0.62
"""Frame pixels a canvas pixel; a hand is about 80 pixels long."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """One instance over a clip.

    Args:
        category: an object's noun or "hand".
        slot: an object's number in annotations, −1 for hands.
        sprite: its picture.
        scale: frame pixels a canvas pixel.
        centre: (F, 2) where the sprite's anchor lies, in pixels before camera shake.
        depth: drawing order; higher is nearer to the camera.
        angle: turn in radians; positive turns x towards y.
        effect: what happens to its picture.
        progress: (F,) progress of the effect; empty where there is none.
        out: unit vector along the arm, hands only.
        style: colours, hands only.
    """

    category: str
    slot: int
    sprite: Sprite
    scale: float
    centre: FloatArray
    depth: int
    angle: float = 0.0
    effect: EffectName = "none"
    progress: FloatArray = field(default_factory=lambda: np.zeros(0))
    out: FloatArray | None = None
    style: HandStyle | None = None

    def placement(self, frame: int, shift: FloatArray) -> FloatArray:
        """Return the (2, 3) affine matrix from canvas to frame pixels."""
        linear = self._linear()
        offset = self.centre[frame] + shift - linear @ np.array(self.sprite.anchor)
        return np.column_stack([linear, offset])

    def boxes(self, shift: FloatArray) -> FloatArray:
        """Return the (F, 4) tight boxes (x1, y1, x2, y2) in pixels under camera shake `shift` (F, 2)."""
        hull = (self.sprite.hull - np.array(self.sprite.anchor)) @ self._linear().T
        place = self.centre + shift
        # Hull points are pixel numbers, box corners are pixel borders: pixel i spans i to i + 1.
        return np.concatenate([place + hull.min(axis=0), place + hull.max(axis=0) + 1.0], axis=1)

    def _linear(self) -> FloatArray:
        cosine, sine = np.cos(self.angle) * self.scale, np.sin(self.angle) * self.scale
        return np.array([[cosine, -sine], [sine, cosine]])


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A clip ready to be rendered and annotated.

    Args:
        tracks: instances; at most four where one action is shown.
        placeholders: the nouns that fill the template.
        camera: (F, 2) whole-pixel shift of everything.
        brightness: (F,) factor on the picture.
    """

    tracks: tuple[Track, ...]
    placeholders: tuple[str, ...]
    camera: FloatArray
    brightness: FloatArray

    @property
    def num_frames(self) -> int:
        """Length of the clip."""
        return len(self.camera)


def build_scene(action: Action, nouns: Sequence[str], distractor: str, seed: int, number: int) -> Scene:
    """Lay out one clip.

    All positions come from one random stream that does not know the action's effect, so actions that share a
    motion share its boxes exactly when seed, number and nouns are the same.

    Args:
        action: what happens.
        nouns: names of the acting objects, one for each placeholder.
        distractor: name of an object that may lie about and does nothing.
        seed: the data set's seed.
        number: the clip's number.
    """
    rng = np.random.default_rng([seed, number, 0])
    style_rng = np.random.default_rng([seed, number, 1])
    u = np.linspace(0.0, 1.0, int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1)))
    motion, tracks = acting_objects(rng, action, nouns, u)
    hands = list(motion.hands)
    bystander = _bystander(rng, motion, distractor, len(tracks))
    if bystander is not None and len(tracks) + len(hands) < MAX_INSTANCES:
        tracks.append(bystander)
    idle, wants_idle = motions.idle_hand(rng, u), rng.random() < 0.25
    if wants_idle and len(hands) == 1 and len(tracks) + len(hands) < MAX_INSTANCES:
        hands.append(idle)
    tracks.extend(hand_tracks(style_rng, hands))
    return Scene(
        tracks=tuple(tracks),
        placeholders=tuple(nouns[: action.num_placeholders]),
        camera=shaken_camera(rng, len(u)),
        brightness=changing_light(rng, u),
    )


def acting_objects(rng: Rng, action: Action, nouns: Sequence[str], u: FloatArray) -> tuple[Motion, list[Track]]:
    """Return how an action moves things over u (F,) from 0 to 1, and its objects as tracks, slots from 0."""
    cast = _cast(rng, action, nouns)
    longest = rng.uniform(80, 108) if len(cast) == 1 else rng.uniform(62, 80)
    sprites = [draw_object(LOOK_BY_NOUN[noun], tilt) for noun, tilt in cast]
    scales = [_scale(sprite, longest * rng.uniform(0.95, 1.05)) for sprite in sprites]
    sizes: list[Size] = [_size(s, scale) for s, scale in zip(sprites, scales, strict=True)]
    motion = action.motion(rng, u, sizes)
    return motion, [
        Track(
            category=cast[slot][0],
            slot=slot,
            sprite=sprites[slot],
            scale=scales[slot],
            centre=path.centre,
            depth=path.depth,
            effect=action.effect if slot == 0 else "none",
            progress=path.progress,
        )
        for slot, path in enumerate(motion.objects)
    ]


def _cast(rng: Rng, action: Action, nouns: Sequence[str]) -> list[tuple[str, float]]:
    """Return noun and tilt in degrees of every acting object."""
    if not action.num_copies:
        return [(noun, float(rng.uniform(-10, 10))) for noun in nouns]
    count = action.num_copies + int(rng.random() < 0.5)
    return [(nouns[0], float(rng.uniform(-10, 10))) for _ in range(count)]


def _scale(sprite: Sprite, longest: float) -> float:
    return longest / max(sprite.extent())


def _size(sprite: Sprite, scale: float) -> Size:
    width, height = sprite.extent()
    return width * scale, height * scale


def _bystander(rng: Rng, motion: Motion, noun: str, slot: int) -> Track | None:
    """Return a still object away from all that moves, now and then, when there is room."""
    tilt, longest = float(rng.uniform(-20, 20)), float(rng.uniform(50, 66))
    places = rng.uniform((55, 50), (WIDTH - 55, HEIGHT - 45), (12, 2))
    busy = np.concatenate([path.centre for path in motion.objects] + [hand.tip for hand in motion.hands])
    clearance = np.linalg.norm(places[:, None] - busy[None], axis=2).min(axis=1)
    if rng.random() > 0.45 or clearance.max() < 72:
        return None
    centre = np.tile(places[int(clearance.argmax())], (len(motion.objects[0].centre), 1))
    return plain_object(noun, slot, tilt, longest, centre, depth=0)


def plain_object(noun: str, slot: int, tilt_degrees: float, longest: float, centre: FloatArray, *, depth: int) -> Track:
    """Return an object that nothing happens to, its longer side of so many pixels."""
    sprite = draw_object(LOOK_BY_NOUN[noun], tilt_degrees)
    return Track(category=noun, slot=slot, sprite=sprite, scale=_scale(sprite, longest), centre=centre, depth=depth)


def hand_tracks(rng: Rng, hands: Sequence[HandPath]) -> list[Track]:
    """Return the hands of one person: one skin tone, thumbs on the inner sides."""
    style = random_hand(rng)
    tracks = []
    for hand in hands:
        sprite = draw_hand(style, is_left=bool(hand.out[0] < 0))
        tracks.append(
            Track(
                category="hand",
                slot=-1,
                sprite=sprite,
                scale=HAND_SCALE,
                centre=hand.tip,
                depth=hand.depth,
                angle=float(np.arctan2(-hand.out[0], hand.out[1])),
                out=hand.out,
                style=style,
            )
        )
    return tracks


def shaken_camera(rng: Rng, num_frames: int) -> FloatArray:
    """Return (F, 2) a whole-pixel random walk that is pulled back to zero."""
    steps = rng.normal(0.0, 1.0, (num_frames, 2))
    shift = np.zeros((num_frames, 2))
    for frame in range(1, num_frames):
        shift[frame] = 0.9 * shift[frame - 1] + steps[frame]
    return np.asarray(np.clip(np.round(shift), -8, 8))


def changing_light(rng: Rng, u: FloatArray) -> FloatArray:
    """Return (F,) a factor on the picture that swings slowly by a tenth."""
    return np.asarray(1 + 0.1 * np.sin(np.pi * (u * rng.uniform(0.3, 1.6) + rng.uniform(0, 2))))
