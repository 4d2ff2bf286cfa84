"""Recordings of an activity as several atomic actions in order, with sound: what each shows and hears.

Twelve atomic actions, six of which sound. Grind and whisk look alike and sound otherwise, scrape and spray too; tear
and crumple sound alike and look otherwise, and raise and lower, like all others, are silent. Each of ten activities is
three or four of them in order; no atomic action is of one activity alone, two pairs of activities differ in sound
alone, one in looks alone, and one in order alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifcar.extract.toybox.actions import ACTIONS
from ifcar.extract.toybox.encode import FRAMES_PER_SECOND
from ifcar.extract.toybox.looks import nouns_of
from ifcar.extract.toybox.several import Act
from ifcar.extract.toybox.splits import BLOCKS, TRAIN_BLOCKS, Plan

NUM_RECORDINGS = 240
SECONDS = 8
ANNOTATION_FPS = 30
"""What numbers of annotated frames count in, from 1."""
_LENGTHS = {3: ((2, 3, 3),), 4: ((2, 2, 2, 2), (1, 2, 2, 3))}
"""Seconds of each act, in any order, by the number of acts."""
_PLAN_STREAM = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """What an atomic action sounds like: a tone, where both frequencies are one, or a band of noise, in pulses.

    Args:
        low_hz: lower end of the band.
        high_hz: upper end.
        pulses: a second.
    """

    low_hz: float
    high_hz: float
    pulses: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Atomic:
    """An atomic action.

    Args:
        name: in lists of classes.
        look: index into `ACTIONS`.
        noise: its sound; None: silent.
    """

    name: str
    look: int
    noise: Noise | None = None


def _look(start: str) -> int:
    (found,) = (k for k, action in enumerate(ACTIONS) if action.template.startswith(start))
    return found


_RUSTLE = Noise(low_hz=1500, high_hz=3000, pulses=5)
ATOMICS = (
    Atomic(name="grind", look=_look("Spinning"), noise=Noise(low_hz=350, high_hz=350, pulses=7)),
    Atomic(name="whisk", look=_look("Spinning"), noise=Noise(low_hz=1100, high_hz=1100, pulses=7)),
    Atomic(name="scrape", look=_look("Painting"), noise=Noise(low_hz=500, high_hz=900, pulses=3)),
    Atomic(name="spray", look=_look("Painting"), noise=Noise(low_hz=4500, high_hz=7000, pulses=3)),
    Atomic(name="tear", look=_look("Tearing"), noise=_RUSTLE),
    Atomic(name="crumple", look=_look("Folding"), noise=_RUSTLE),
    Atomic(name="raise", look=_look("Moving [something] up")),
    Atomic(name="lower", look=_look("Moving [something] down")),
    Atomic(name="poke", look=_look("Poking")),
    Atomic(name="take", look=_look("Taking")),
    Atomic(name="put_behind", look=_look("Putting [something] behind")),
    Atomic(name="put_in_front", look=_look("Putting [something] in front")),
)
ACTIVITIES: dict[str, tuple[str, ...]] = {
    "mix_batter": ("take", "whisk", "raise", "put_in_front"),
    "mill_grain": ("take", "grind", "raise", "put_in_front"),
    "coat_a_box": ("put_behind", "spray", "lower"),
    "sand_a_box": ("put_behind", "scrape", "lower"),
    "wrap_a_gift": ("lower", "crumple", "take", "poke"),
    "open_a_gift": ("lower", "tear", "take", "poke"),
    "pierce_a_can": ("poke", "grind", "raise"),
    "seal_a_can": ("raise", "grind", "poke"),
    "clean_the_table": ("spray", "put_in_front", "tear", "put_behind"),
    "cook_a_sauce": ("scrape", "whisk", "crumple", "put_in_front"),
}
_NUMBER_OF = {atomic.name: number for number, atomic in enumerate(ATOMICS)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingPlan(Plan):
    """What one recording shows, of objects of group A where it is for training, and else of B.

    Args:
        activity: name of its activity.
        acts: its atomic actions, one after another.
        bystanders: objects that lie about.
    """

    activity: str
    acts: tuple[Act, ...]
    bystanders: tuple[str, ...]

    @property
    def atomics(self) -> tuple[Atomic, ...]:
        """What each act is."""
        return tuple(ATOMICS[_NUMBER_OF[name]] for name in ACTIVITIES[self.activity])

    def records(self) -> list[dict[str, Any]]:
        """Return its atomic actions as annotated: frames from 1 at `ANNOTATION_FPS`, both ends included."""
        found = []
        for act, atomic in zip(self.acts, self.atomics, strict=True):
            first = act.start_frame // FRAMES_PER_SECOND * ANNOTATION_FPS + 1
            last = act.stop_frame // FRAMES_PER_SECOND * ANNOTATION_FPS
            own = {"frame_start": first, "frame_end": last, "class": atomic.name, "action_length": last - first + 1}
            found.append(own)
        return found


def plan_recording(seed: int, number: int) -> RecordingPlan:
    """Return what recording `number` shows: activities take turns, two of three recordings are for training."""
    rng = np.random.default_rng([seed, number, _PLAN_STREAM])
    turn, place = divmod(number, BLOCKS)
    is_train = place < TRAIN_BLOCKS
    activity = list(ACTIVITIES)[turn % len(ACTIVITIES)]
    names = ACTIVITIES[activity]
    choices = _LENGTHS[len(names)]
    lengths = rng.permutation(choices[int(rng.integers(len(choices)))])
    ends = np.cumsum(lengths) * FRAMES_PER_SECOND
    pool = [str(noun) for noun in rng.permutation(nouns_of("A" if is_train else "B"))]
    acts = []
    for name, length, end in zip(names, lengths.tolist(), ends.tolist(), strict=True):
        look = ATOMICS[_NUMBER_OF[name]].look
        nouns = tuple(pool.pop() for _ in range(ACTIONS[look].num_placeholders))
        start = end - length * FRAMES_PER_SECOND
        lane = int(rng.integers(2))
        acts.append(Act(class_number=look, nouns=nouns, place=lane, start_frame=start, stop_frame=end))
    return RecordingPlan(
        number=number,
        video_id=f"p{number + 1:04d}_r001_a000",
        is_train=is_train,
        activity=activity,
        acts=tuple(acts),
        bystanders=tuple(pool[: 1 + int(rng.integers(2))]),
    )


def view_tables(
    plans: Sequence[RecordingPlan], seed: int, annotations: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the lists, classes and atomic actions, as Home Action Genome has them, by their path."""
    parts = {"train": True, "test": False}
    lists = {
        f"list_with_activity_labels/{part}_list.csv": [
            f"{plan.video_id},{plan.activity}" for plan in plans if plan.is_train is wanted
        ]
        for part, wanted in parts.items()
    }
    lists["classInd.txt"] = [f"{number} {name}" for number, name in enumerate(ACTIVITIES, 1)]
    lists["classInd_atomic.txt"] = [f"{number} {own.name}" for number, own in enumerate(ATOMICS, 1)]
    texts = {path: "".join(f"{line}\n" for line in lines) for path, lines in lists.items()}
    own = {f"{name.partition('_')[0]}/{name}__aa.json": actions for name, actions in annotations.items()}
    return texts | {f"annotation_files/atomic_actions/{path}": actions for path, actions in own.items()}
