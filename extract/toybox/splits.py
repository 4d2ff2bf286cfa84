"""Which clip shows what, and the label and split files of the three protocols."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifcar.extract.toybox.actions import ACTIONS, Action
from ifcar.extract.toybox.looks import Group, nouns_of

NUM_CLIPS: dict[str, int] = {"small": 486, "standard": 5994}
"""Clips of each size: 18 + 9 and 222 + 111 for training and test of each of the 18 classes."""
BLOCKS, TRAIN_BLOCKS = 3, 2
"""Of every three clips of a class, or of three scenes or recordings, two are for training."""
_ID_PRIME = 220_873
_ID_STEP = 100_003
_SHUFFLE_STREAM = 1 << 40
_NUM_BASE = 9
_SHOTS = {"finetune_5shot_training": 5, "finetune_10shot_train": 10}
_NUM_DRAWS = 3
_POOL = 15
"""Clips of a novel class that shots are drawn from; the three draws of five shots share none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What one clip shows.

    Args:
        number: 0-based number that, with the seed, decides all of its content.
        video_id: its name in all files; says nothing about the class.
        is_train: whether it is for training, in the protocol that is called as the kind, or `compositional`.
    """

    number: int
    video_id: str
    is_train: bool

    @property
    def scene(self) -> int:
        """Number of the scene, where each makes two clips."""
        return self.number // 2

    def entry(self) -> dict[str, Any]:
        """Return the clip's entry in a split file, where the kind has such files."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlan(Plan):
    """What a clip of one action shows.

    Args:
        class_number: index into `ACTIONS`.
        nouns: acting objects, one for each placeholder.
        distractor: an object of the same group that may lie about.
    """

    class_number: int
    nouns: tuple[str, ...]
    distractor: str

    @property
    def action(self) -> Action:
        """The clip's class."""
        return ACTIONS[self.class_number]

    def entry(self) -> dict[str, Any]:
        """Return the clip's entry in a split file."""
        return {
            "id": self.video_id,
            "label": self.action.label(self.nouns),
            "template": self.action.template,
            "placeholders": list(self.nouns),
        }


def plan_clip(seed: int, number: int) -> ClipPlan:
    """Return what clip `number` shows: classes take turns, and each class goes through all its objects in turn."""
    turn, class_number = divmod(number, len(ACTIONS))
    action = ACTIONS[class_number]
    is_train = turn % BLOCKS < TRAIN_BLOCKS
    group: Group = "A" if (action.verb_group == 1) == is_train else "B"
    nouns = nouns_of(group)
    order = np.random.default_rng([seed, class_number, int(is_train)]).permutation(len(nouns))
    block, place = divmod(turn, BLOCKS)
    first = int(order[(block * TRAIN_BLOCKS + place if is_train else block) % len(nouns)])
    others = np.random.default_rng([seed, number, 4]).permutation([k for k in range(len(nouns)) if k != first])
    chosen = [first, *(int(other) for other in others)]
    count = action.num_placeholders
    return ClipPlan(
        number=number,
        video_id=video_id(seed, number),
        class_number=class_number,
        is_train=is_train,
        nouns=tuple(nouns[k] for k in chosen[:count]),
        distractor=nouns[chosen[count]],
    )


def split_files(plans: Sequence[ClipPlan], seed: int) -> dict[str, Any]:
    """Return the content of every label and split file by its path below `splits/`."""
    labels = label_map(range(len(ACTIONS)))
    shuffled = _shuffled_train(plans, seed)
    return {
        **protocol_files("compositional", labels, plans, {p.number for p in plans if p.is_train}),
        "compositional/objectsA.json": list(nouns_of("A")),
        "compositional/objectsB.json": list(nouns_of("B")),
        **protocol_files("shuffled", labels, plans, shuffled),
        **_few_shot_files(plans, seed, shuffled),
    }


def protocol_files(
    name: str, labels: Mapping[str, int], plans: Sequence[Plan], train: Collection[int]
) -> dict[str, Any]:
    """Return a protocol's label file and its two parts, of which the first has the plans of these numbers."""
    return {
        f"{name}/labels.json": labels,
        f"{name}/train.json": [plan.entry() for plan in plans if plan.number in train],
        f"{name}/validation.json": [plan.entry() for plan in plans if plan.number not in train],
    }


def video_id(seed: int, number: int) -> str:
    """Return the name of clip `number` in all files; it says nothing about the class."""
    return str(1 + (_ID_STEP * (number + 1) + 7919 * seed) % _ID_PRIME)


def label_map(classes: Sequence[int]) -> dict[str, int]:
    """Return {class name: target} of these actions, targets in the order of the names."""
    return numbered(sorted(ACTIONS[k].name for k in classes))


def numbered(classes: Iterable[str]) -> dict[str, int]:
    """Return {class name: target} of classes in the order of their targets."""
    return {name: target for target, name in enumerate(classes)}


def _by_class(plans: Sequence[ClipPlan], seed: int) -> list[list[ClipPlan]]:
    """Return the clips of each class in a random order that depends on the seed alone."""
    groups = [[p for p in plans if p.class_number == k] for k in range(len(ACTIONS))]
    rng = np.random.default_rng([seed, _SHUFFLE_STREAM])
    return [[group[int(k)] for k in rng.permutation(len(group))] for group in groups]


def _shuffled_train(plans: Sequence[ClipPlan], seed: int) -> set[int]:
    """Return the numbers of the training clips of `shuffled`: as many of each class as in `compositional`."""
    chosen: set[int] = set()
    for group in _by_class(plans, seed):
        chosen.update(p.number for p in group[: sum(p.is_train for p in group)])
    return chosen


def _few_shot_files(plans: Sequence[ClipPlan], seed: int, base_train: set[int]) -> dict[str, Any]:
    """Return the few-shot files: three draws, tested on the same clips; ten shots of a class begin with its five."""
    classes = [int(k) for k in np.random.default_rng([seed, _SHUFFLE_STREAM, 1]).permutation(len(ACTIONS))]
    base, novel = set(classes[:_NUM_BASE]), set(classes[_NUM_BASE:])
    groups = _by_class(plans, seed)
    clips = [p for p in plans if p.class_number in base]
    files: dict[str, Any] = {
        "fewshot/base_labels.json": label_map(sorted(base)),
        "fewshot/base_training_set.json": [p.entry() for p in clips if p.number in base_train],
        "fewshot/base_validation_set.json": [p.entry() for p in clips if p.number not in base_train],
        "fewshot/finetune_labels.json": label_map(sorted(novel)),
    }
    pools = [groups[k][: min(_POOL, len(groups[k]) - 1)] for k in sorted(novel)]
    for name, shots in _SHOTS.items():
        for draw in range(_NUM_DRAWS):
            first = draw * _POOL // _NUM_DRAWS
            chosen = [p for pool in pools for p in (pool[first:] + pool[:first])[:shots]]
            suffix = f"_draw{draw + 1}" if draw else ""
            files[f"fewshot/{name}{suffix}.json"] = [p.entry() for p in chosen]
    taken = {p.number for pool in pools for p in pool}
    rest = [p for p in plans if p.class_number in novel and p.number not in taken]
    return files | {"fewshot/finetune_validation.json": [p.entry() for p in rest]}
