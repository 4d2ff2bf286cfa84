"""Clips in pairs that differ in nothing but which instance is where: what relations between instances are for.

Two ways L and R come from the left and the right (or from above and below), meet in the middle in one box, and part
again. Two instances of one category either stay, each on its own way, or cross: from the meeting on, each takes the
other's. In every frame the same boxes of the same categories are there. So the mean over a frame's instances of
anything that is computed from an instance's box and category is the same in both clips of a pair, and a head that
averages each frame's instances gives both the same logits: it is right in exactly half of the clips at best.

- touch: a hand touches one of two things, and after they have met, the left or right one. The same thing again, or the
  other? What the hand does, and whether the things crossed, says nothing by itself.
- hold: two hands and the two things that they hold meet. Hands stay or cross, and so do things: each hand keeps its
  thing, or they exchange them. Again neither says anything by itself.
- swap: things cross between hands that stay, or hands cross over things that stay, the boxes of the one clip being
  those of the other with categories swapped. An instance's own way over time is enough.

Boxes are squares of one side around what they hold, exact, and state their tracks; the camera stands still.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifcar.extract.toybox.looks import LOOKS, SHAPES
from ifcar.extract.toybox.motion import HandPath, Rng, ease
from ifcar.extract.toybox.render import render_frames
from ifcar.extract.toybox.scene import Scene, changing_light, hand_tracks, plain_object
from ifcar.extract.toybox.splits import BLOCKS, TRAIN_BLOCKS, Plan, numbered, protocol_files, video_id
from ifcar.extract.toybox.sprites import FloatArray, Image

NUM_CLIPS = 720
NUM_FRAMES = 45
PAIRS = (
    ("Touching one of two things twice", "Touching one of two things, then the other"),
    ("Two hands keeping what they hold", "Two hands exchanging what they hold"),
    ("Two things changing places between hands that stay", "Two hands changing places over things that stay"),
)
"""The classes; scenes take turns, and each makes a clip of both classes of a pair."""
TOUCH, HOLD, SWAP = range(len(PAIRS))
_SIDE = 46.0
"""Of every box, in pixels."""
_PLAN_STREAM, _SCENE_STREAM = 9, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationalPlan(Plan):
    """What one clip shows.

    Args:
        nouns: the two things, of different shapes.
        things_cross: whether the things exchange their ways where they meet.
        hands_cross: whether two hands do.
        sides: where the one hand of "touch" goes first and last, 0 = left, 1 = right.
    """

    nouns: tuple[str, str]
    things_cross: bool
    hands_cross: bool
    sides: tuple[int, int]

    @property
    def pair(self) -> int:
        """Which pair of classes it belongs to, index into `PAIRS`."""
        return self.scene % len(PAIRS)

    def entry(self) -> dict[str, Any]:
        """Return the clip's entry in a split file."""
        template = PAIRS[self.pair][self.number % 2]
        return {"id": self.video_id, "scene": self.scene, "template": template, "placeholders": list(self.nouns)}


def plan_relational(seed: int, number: int) -> RelationalPlan:
    """Return what clip `number` shows; all but who crosses is drawn for the scene."""
    scene, other = number // 2, number % 2 == 1
    rng = np.random.default_rng([seed, scene, _PLAN_STREAM])
    shapes = rng.permutation(len(SHAPES))[:2]
    first, second = ([k.noun for k in LOOKS if k.shape == SHAPES[s]][int(rng.integers(2))] for s in shapes)
    first_side, last_side = (int(value) for value in rng.integers(2, size=2))
    pair = scene % len(PAIRS)
    if pair == TOUCH:
        hands, things = False, (first_side != last_side) != other
    elif pair == HOLD:
        hands = bool(first_side)
        things = hands != other
    else:
        hands, things = other, not other
    return RelationalPlan(
        number=number,
        video_id=video_id(seed, number),
        is_train=scene // len(PAIRS) % BLOCKS < TRAIN_BLOCKS,
        nouns=(first, second),
        things_cross=things,
        hands_cross=hands,
        sides=(first_side, last_side),
    )


def build_relational(plan: RelationalPlan, seed: int) -> Scene:
    """Lay out a clip."""
    rng = np.random.default_rng([seed, plan.scene, _SCENE_STREAM])
    u = np.linspace(0.0, 1.0, NUM_FRAMES)
    ways = _ways(rng, u, upright=plan.pair == SWAP)
    things = [
        plain_object(noun, slot, 0.0, _SIDE, way, depth=2)
        for slot, (noun, way) in enumerate(zip(plan.nouns, _cast(ways, plan.things_cross), strict=True))
    ]
    below = np.array([0.0, 0.0 if plan.pair == SWAP else 0.7 * _SIDE])
    if plan.pair == TOUCH:
        first, last = plan.sides
        tips = [_reach(u, (ways[first][0] + below, ways[last][-1] + below))]
    else:
        tips = [way + below for way in _cast(ways, plan.hands_cross)]
    out = np.array([1.0, 0.0] if plan.pair == SWAP else [0.0, 1.0])
    style = np.random.default_rng([seed, plan.scene, _SCENE_STREAM, 1])
    return Scene(
        tracks=(*things, *hand_tracks(style, [HandPath(tip=tip, out=out, depth=6) for tip in tips])),
        placeholders=plan.nouns,
        camera=np.zeros((NUM_FRAMES, 2)),
        brightness=changing_light(rng, u),
    )


def _ways(rng: Rng, u: FloatArray, *, upright: bool) -> tuple[FloatArray, FloatArray]:
    """Return two ways (F, 2), from left and right or from above and below, that meet in the middle frame."""
    middle = np.array([rng.uniform(150, 170), rng.uniform(95, 115)])
    along = np.array([0.0, 1.0]) if upright else np.array([1.0, 0.0])
    reach = 55.0 if upright else 80.0
    pause = rng.uniform(0.26, 0.34)
    apart = 1 - ease(u, pause, 0.5) + ease(u, 0.5, 1 - pause)
    late = (u > 0.5)[:, None]
    ways = []
    for side in (-1.0, 1.0):
        before, after = (side * along * reach + rng.uniform(-8, 8, 2) for _ in range(2))
        ways.append(middle + apart[:, None] * np.where(late, after, before))
    return ways[0], ways[1]


def _cast(ways: tuple[FloatArray, FloatArray], crosses: bool) -> tuple[FloatArray, FloatArray]:
    """Return the two instances' ways: L and R themselves, or exchanged from the middle on."""
    if not crosses:
        return ways
    late = (np.arange(NUM_FRAMES) > NUM_FRAMES // 2)[:, None]
    return np.where(late, ways[1], ways[0]), np.where(late, ways[0], ways[1])


def _reach(u: FloatArray, places: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Return (F, 2) a hand's way: it touches one place, draws back while things move, and touches another."""
    home = np.array([160.0, 215.0])
    leaves, comes = 1 - ease(u, 0.2, 0.3), ease(u, 0.7, 0.8)
    return np.asarray(home + np.outer(leaves, places[0] - home) + np.outer(comes, places[1] - home))


def relational_frames(plan: RelationalPlan, seed: int) -> Iterable[Image]:
    """Return the clip's pictures in order."""
    return render_frames(build_relational(plan, seed), seed, plan.scene)


def relational_records(plan: RelationalPlan, seed: int) -> list[dict[str, Any]]:
    """Return the clip's annotation records: a square around each instance, with its track."""
    tracks = build_relational(plan, seed).tracks
    return [
        {
            "name": f"{plan.video_id}/{frame + 1:04d}.jpg",
            "labels": [
                {
                    "box2d": _square(track.centre[frame]),
                    "category": track.category,
                    "standard_category": "hand" if track.slot < 0 else f"{track.slot:04d}",
                    "track": number,
                }
                for number, track in enumerate(tracks)
            ],
            "nr_instances": len(tracks),
        }
        for frame in range(NUM_FRAMES)
    ]


def _square(centre: FloatArray) -> dict[str, float]:
    x, y = centre.tolist()
    half = _SIDE / 2
    return {"x1": x - half, "y1": y - half, "x2": x + half, "y2": y + half}


def relational_files(plans: Sequence[RelationalPlan], seed: int) -> dict[str, Any]:
    """Return the content of every label and split file by its path below `splits/`."""
    train = {plan.number for plan in plans if plan.is_train}
    return protocol_files("relational", numbered(name for both in PAIRS for name in both), plans, train)
