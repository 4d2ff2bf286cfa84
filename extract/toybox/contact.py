"""Clips for relations between hands and objects: which object a hand touches, and which way time runs.

Each scene makes two clips, the second of which shows exactly the first's pictures in reverse. Two to four objects of
different shapes stand in columns; one or two hands come from below, each under an object of its own, and touch it or
end a little below it. Whether an object that is there is touched is a fair coin, whatever else is there. The first hand
makes one of four motions, together with its object where it touches that; played in reverse, they are four others.

The first and the last seven pictures are black: nothing is seen there, so that whoever leaves out the first sampled
frame sees the same of a clip as of its reverse. `SHOWN` are the frames between.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifcar.cache.schema import Category
from ifcar.extract.toybox.looks import LOOKS, SHAPES
from ifcar.extract.toybox.motion import GRIP, HandPath, ease
from ifcar.extract.toybox.render import render_frames, tight_boxes, visible_masks
from ifcar.extract.toybox.scene import Scene, changing_light, hand_tracks, plain_object, shaken_camera
from ifcar.extract.toybox.splits import BLOCKS, TRAIN_BLOCKS, Plan, numbered, protocol_files, video_id
from ifcar.extract.toybox.sprites import FloatArray, Image
from ifcar.extract.tracks import Tracks

NUM_CLIPS = 450
NUM_FRAMES = 45
SHOWN = range(7, 38)
MOTIONS = (
    ("A hand comes near", "A hand goes away"),
    ("A hand sweeps to the right", "A hand sweeps to the left"),
    ("A hand rises", "A hand sinks"),
    ("A hand swings to the right", "A hand swings to the left"),
)
"""Each motion and its reverse; a class of protocol `order` each."""
MOVES_OBJECT = (False, True, True, True)
"""Whether what the first hand touches moves with it, by motion."""
CLASSES = ("background", "hand", *SHAPES)
"""Of `object_classes`."""
_COLUMNS = (40.0, 120.0, 200.0, 280.0)
_AWAY = 130.0
_PLAN_STREAM, _SCENE_STREAM = 7, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """A hand under an object.

    Args:
        object_place: the object's place in the plan.
        touches: whether the hand touches it.
    """

    object_place: int
    touches: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ContactPlan(Plan):
    """What one clip shows: its scene, in reverse where its number is odd; for training in both protocols or none.

    Args:
        motion: of the first hand, index into `MOTIONS`.
        nouns: the objects, of different shapes.
        columns: where each object stands.
        reaches: of the hands.
    """

    motion: int
    nouns: tuple[str, ...]
    columns: tuple[int, ...]
    reaches: tuple[Reach, ...]

    @property
    def is_reversed(self) -> bool:
        """Whether time runs backwards."""
        return self.number % 2 == 1

    def touched(self) -> list[str]:
        """Return the shapes that a hand touches, in the plan's order."""
        return [shape_of(self.nouns[reach.object_place]) for reach in self.reaches if reach.touches]

    def entry(self) -> dict[str, Any]:
        """Return the clip's entry in a split file; `template` is its class of protocol `order`."""
        return {
            "id": self.video_id,
            "scene": self.scene,
            "template": MOTIONS[self.motion][self.is_reversed],
            "placeholders": [self.nouns[self.reaches[0].object_place]],
            "actions": [{"template": _contact_class(shape)} for shape in self.touched()],
        }


def shape_of(noun: str) -> str:
    """Return the shape of an object, "mug" of "red mug"."""
    return noun.split()[-1]


def plan_contact(seed: int, number: int) -> ContactPlan:
    """Return what clip `number` shows."""
    scene = number // 2
    rng = np.random.default_rng([seed, scene, _PLAN_STREAM])
    num_objects = int(rng.integers(2, 5))
    shapes = rng.permutation(len(SHAPES))[:num_objects]
    nouns = [[look.noun for look in LOOKS if look.shape == SHAPES[k]][int(rng.integers(2))] for k in shapes]
    # half of the objects are touched, whatever their number: 0, 1, 1 or 2 of 2, 1 or 2 of 3, 2 of 4
    num_touched = int(rng.choice({2: (0, 1, 1, 2), 3: (1, 2), 4: (2,)}[num_objects]))
    num_hands = max(1, num_touched) + int(num_touched < 2 and rng.random() < 0.5)
    reaches = [Reach(object_place=k, touches=k < num_touched) for k in range(min(num_hands, num_objects))]
    order = rng.permutation(num_objects)
    return ContactPlan(
        number=number,
        video_id=video_id(seed, number),
        is_train=scene % BLOCKS < TRAIN_BLOCKS,
        motion=scene // BLOCKS % len(MOTIONS),
        nouns=tuple(nouns[k] for k in order),
        columns=tuple(int(k) for k in rng.permutation(len(_COLUMNS))[:num_objects]),
        reaches=tuple(
            Reach(object_place=int(np.flatnonzero(order == reaches[k].object_place)[0]), touches=reaches[k].touches)
            for k in rng.permutation(len(reaches))
        ),
    )


def build_contact(plan: ContactPlan, seed: int) -> Scene:
    """Lay out a clip's scene, as it is shown forwards."""
    rng = np.random.default_rng([seed, plan.scene, _SCENE_STREAM])
    u = np.linspace(0.0, 1.0, NUM_FRAMES)
    still = np.zeros((NUM_FRAMES, 2))
    hand_ways = {reach: _way(plan.motion, u) if k == 0 else still for k, reach in enumerate(plan.reaches)}
    carried_by = {reach.object_place: reach for reach in plan.reaches if reach.touches}
    objects = []
    for place, (noun, column) in enumerate(zip(plan.nouns, plan.columns, strict=True)):
        base = np.array([_COLUMNS[column] + rng.uniform(-2, 2), rng.uniform(66, 84)])
        carries = place in carried_by and MOVES_OBJECT[plan.motion]
        way = hand_ways[carried_by[place]] if carries else still
        tilt, longest = float(rng.uniform(-8, 8)), float(rng.uniform(40, 48))
        objects.append(plain_object(noun, place, tilt, longest, base + way, depth=2))
    hands = []
    for reach, way in hand_ways.items():
        above = objects[reach.object_place]
        lower_edge = above.boxes(still)[0, 3] - above.centre[0, 1]
        rest = above.centre[0] - (way[0] if reach.touches and MOVES_OBJECT[plan.motion] else 0.0)
        gap = -GRIP if reach.touches else rng.uniform(22, 32)
        tip = rest + np.array([rng.uniform(-3, 3), lower_edge + gap]) + way
        hands.append(HandPath(tip=tip, out=np.array([0.0, 1.0]), depth=6))
    style = np.random.default_rng([seed, plan.scene, _SCENE_STREAM, 1])
    light = changing_light(rng, u)
    light[: SHOWN.start] = light[SHOWN.stop :] = 0.0
    return Scene(
        tracks=(*objects, *hand_tracks(style, hands)),
        placeholders=plan.nouns,
        camera=shaken_camera(rng, NUM_FRAMES),
        brightness=light,
    )


def _way(motion: int, u: FloatArray) -> FloatArray:
    """Return (F, 2) how a hand moves around its place."""
    if motion == 0:
        return np.outer(1 - ease(u, 0.2, 0.6), [0.0, _AWAY])
    amount = ease(u, 0.25, 0.8)
    if motion == 2:
        return np.outer(28 * (1 - amount), [0.0, 1.0])
    dip = 18 * np.sin(np.pi * amount) if motion == 3 else np.zeros_like(u)
    return np.stack([28 * amount - 14, dip], axis=1)


def contact_tracks(plan: ContactPlan, seed: int) -> Tracks:
    """Return what is seen of each instance in the clip's own order of frames: exact boxes, masks and classes."""
    scene = build_contact(plan, seed)
    masks = visible_masks(scene)[:: -1 if plan.is_reversed else 1]
    numbers = [CLASSES.index("hand" if track.slot < 0 else shape_of(track.category)) for track in scene.tracks]
    is_hand = np.array([track.slot < 0 for track in scene.tracks])
    return Tracks(
        frames=np.arange(NUM_FRAMES),
        boxes=tight_boxes(masks).astype(np.float32),
        categories=np.where(is_hand, Category.SUBJECT, Category.OBJECT).astype(np.uint8),
        values={"masks": masks, "object_classes": np.broadcast_to(np.array(numbers, np.int16), masks.shape[:2])},
    )


def contact_frames(plan: ContactPlan, seed: int) -> Iterable[Image]:
    """Return the clip's pictures in order."""
    frames = render_frames(build_contact(plan, seed), seed, plan.scene)
    return reversed(list(frames)) if plan.is_reversed else frames


def contact_records(plan: ContactPlan, seed: int) -> list[dict[str, Any]]:
    """Return the clip's annotation records: the exact box of what is seen of each instance."""
    names = [(noun, f"{slot:04d}") for slot, noun in enumerate(plan.nouns)] + [("hand", "hand")] * len(plan.reaches)
    records = []
    for frame, boxes in enumerate(contact_tracks(plan, seed).boxes.tolist()):
        labels = [
            {
                "box2d": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
                "category": category,
                "standard_category": slot,
            }
            for (category, slot), box in zip(names, boxes, strict=True)
            if not math.isnan(box[0])
        ]
        records.append({"name": f"{plan.video_id}/{frame + 1:04d}.jpg", "labels": labels, "nr_instances": len(labels)})
    return records


def contact_files(plans: Sequence[ContactPlan], seed: int) -> dict[str, Any]:
    """Return the content of every label and split file by its path below `splits/`."""
    orders = [name for both in MOTIONS for name in both]
    labels = {"contact": [_contact_class(shape) for shape in SHAPES], "order": orders}
    train = {plan.number for plan in plans if plan.is_train}
    parts = (protocol_files(name, numbered(classes), plans, train) for name, classes in labels.items())
    return {path: content for part in parts for path, content in part.items()}


def _contact_class(shape: str) -> str:
    return f"A hand touches a {shape}"
