"""Clips of the toybox that show two to four actions, one after another or at once: what each shows, and its scene.

The picture has two lanes, left and right, and the clip two parts, early and late; where all actions fall into one part,
it is the whole clip. Each action takes one of the four places with its own hands and objects, smaller than in a clip of
one action. Between the parts hands withdraw, objects slide out over the upper border and others in. Half of the time an
action is drawn with its partner, so that labels correlate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ifcar.extract.toybox.actions import ACTIONS, Action
from ifcar.extract.toybox.encode import FRAMES_PER_SECOND
from ifcar.extract.toybox.looks import nouns_of
from ifcar.extract.toybox.motion import OFF_FRAME, Rng, ease
from ifcar.extract.toybox.scene import (
    HEIGHT,
    WIDTH,
    Scene,
    Track,
    acting_objects,
    changing_light,
    hand_tracks,
    shaken_camera,
)
from ifcar.extract.toybox.splits import BLOCKS, TRAIN_BLOCKS, Plan, label_map, protocol_files, video_id
from ifcar.extract.toybox.sprites import FloatArray

NUM_CLIPS = 300
NUM_FRAMES = 64
_PLACES = 4
"""Two lanes times two parts; place p is lane p % 2 in part p // 2."""
_SCALE = 0.66
_SLIDE = 4
"""Frames in which things slide in or out."""
_PLAN_STREAM, _SCENE_STREAM, _SHUFFLE_STREAM = 5, 6, 1 << 41


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """One action of a clip.

    Args:
        class_number: index into `ACTIONS`.
        nouns: acting objects, one for each placeholder.
        place: 0 … 3; the lane is place % 2, the part place // 2.
        start_frame: first frame of its part.
        stop_frame: frame after its last one.
    """

    class_number: int
    nouns: tuple[str, ...]
    place: int
    start_frame: int
    stop_frame: int

    @property
    def action(self) -> Action:
        """The act's class."""
        return ACTIONS[self.class_number]

    def entry(self) -> dict[str, Any]:
        """Return the act as split files hold it."""
        return {
            "label": self.action.label(self.nouns),
            "template": self.action.template,
            "placeholders": list(self.nouns),
            "start_sec": round(self.start_frame / FRAMES_PER_SECOND, 3),
            "end_sec": round(self.stop_frame / FRAMES_PER_SECOND, 3),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class SeveralPlan(Plan):
    """What a clip of several actions shows.

    Args:
        acts: two to four, of different classes and with different objects.
    """

    acts: tuple[Act, ...]

    def entry(self) -> dict[str, Any]:
        """Return the clip's entry in a split file."""
        return {"id": self.video_id, "actions": [act.entry() for act in self.acts]}


def plan_several(seed: int, number: int) -> SeveralPlan:
    """Return what clip `number` shows: two, three and four actions take turns, two of three clips are for training."""
    rng = np.random.default_rng([seed, number, _PLAN_STREAM])
    turn, place_in_block = divmod(number, BLOCKS)
    is_train = place_in_block < TRAIN_BLOCKS
    count = 2 + turn % 3
    boundaries = [NUM_FRAMES // 2 + int(rng.integers(-4, 5)) for _ in range(2)]
    pools = {group: list(rng.permutation(nouns_of(group))) for group in ("A", "B")}
    places = sorted(rng.permutation(_PLACES)[:count].tolist())
    whole = len({place // 2 for place in places}) == 1
    acts = []
    for class_number, place in zip(_draw_classes(rng, count), places, strict=True):
        action = ACTIONS[class_number]
        pool = pools["A" if (action.verb_group == 1) == is_train else "B"]
        boundary = boundaries[place % 2]
        acts.append(
            Act(
                class_number=class_number,
                nouns=tuple(str(pool.pop()) for _ in range(action.num_placeholders)),
                place=place,
                start_frame=0 if whole or place < 2 else boundary,
                stop_frame=NUM_FRAMES if whole or place >= 2 else boundary,
            )
        )
    return SeveralPlan(number=number, video_id=video_id(seed, number), is_train=is_train, acts=tuple(acts))


def _draw_classes(rng: Rng, count: int) -> list[int]:
    """Return different classes; each is, half of the time, the partner of the one before."""
    chosen: list[int] = []
    while len(chosen) < count:
        partner = (chosen[-1] + len(ACTIONS) // 2) % len(ACTIONS) if chosen else -1
        drawn = int(rng.integers(len(ACTIONS)))
        following = partner if chosen and rng.random() < 0.5 else drawn
        if following not in chosen:
            chosen.append(following)
    return chosen


def build_several(plan: SeveralPlan, seed: int) -> Scene:
    """Lay out one clip."""
    tracks: list[Track] = []
    for act in plan.acts:
        streams = [np.random.default_rng([seed, plan.number, _SCENE_STREAM, act.place, *own]) for own in ((), (1,))]
        tracks += act_tracks(act, NUM_FRAMES, 1 + max((track.slot for track in tracks), default=-1), *streams)
    rng = np.random.default_rng([seed, plan.number, _SCENE_STREAM])
    return Scene(
        tracks=tuple(tracks),
        placeholders=tuple(noun for act in plan.acts for noun in act.nouns),
        camera=shaken_camera(rng, NUM_FRAMES),
        brightness=changing_light(rng, np.linspace(0.0, 1.0, NUM_FRAMES)),
    )


def act_tracks(act: Act, num_frames: int, first_slot: int, rng: Rng, style: Rng) -> list[Track]:
    """Return the objects, in slots from the first on, and hands of an act over a clip of so many frames."""
    frames = np.arange(num_frames, dtype=np.float64)
    local = np.clip((frames - act.start_frame) / (act.stop_frame - 1 - act.start_frame), 0.0, 1.0)
    motion, objects = acting_objects(rng, act.action, act.nouns, local)
    own = [replace(track, slot=first_slot + track.slot) for track in objects] + hand_tracks(style, motion.hands)
    middle = np.array([WIDTH * (0.26 if act.place % 2 == 0 else 0.74), HEIGHT / 2 + rng.uniform(-10, 10)])
    return [_placed(track, middle, _slide(act, num_frames)) for track in own]


def _placed(track: Track, middle: FloatArray, slide: FloatArray) -> Track:
    """Return the track in a lane: smaller, around the lane's middle, and out of the frame while it is not its turn."""
    centre = (track.centre - np.array([WIDTH / 2, HEIGHT / 2])) * _SCALE + middle
    way = np.array([0.0, -2 * OFF_FRAME]) if track.out is None else track.out * 2 * OFF_FRAME
    return replace(track, scale=track.scale * _SCALE, centre=centre + np.outer(slide, way))


def _slide(act: Act, num_frames: int) -> FloatArray:
    """Return (F,) 0 while it is the act's turn and 1 before and after it, with a few frames of sliding between."""
    frames = np.arange(num_frames, dtype=np.float64)
    slide = np.zeros(num_frames)
    if act.start_frame > 0:
        slide = slide + 1 - ease(frames, act.start_frame - 1, act.start_frame - 1 + _SLIDE)
    if act.stop_frame < num_frames:
        slide = slide + ease(frames, act.stop_frame - _SLIDE, act.stop_frame)
    return np.asarray(np.clip(slide, 0.0, 1.0))


def several_files(plans: Sequence[SeveralPlan], seed: int) -> dict[str, Any]:
    """Return the content of every label and split file by its path below `splits/`."""
    order = np.random.default_rng([seed, _SHUFFLE_STREAM]).permutation(len(plans))
    chosen = {int(k) for k in order[: sum(plan.is_train for plan in plans)]}
    parts = {
        "compositional": {plan.number for plan in plans if plan.is_train},
        "shuffled": {plans[k].number for k in chosen},
    }
    labels = label_map(range(len(ACTIONS)))
    own = (protocol_files(name, labels, plans, train) for name, train in parts.items())
    return {path: content for files in own for path, content in files.items()}
