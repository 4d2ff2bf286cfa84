"""The 18 action templates: what tells each apart, its verb group and its motion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ifcar.extract.toybox import motion
from ifcar.extract.toybox.effects import EffectName
from ifcar.extract.toybox.motion import MotionFunction

Cue = Literal["position", "appearance", "relation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """One class of the toybox, with an object for each placeholder.

    Args:
        template: Something-Something's wording, placeholders in brackets.
        cue: what tells it apart: positions only, appearance only, or relations between instances.
        verb_group: 1 or 2, the verb group of the compositional protocol.
        motion: makes the ways of its objects and hands.
        effect: what happens to the first object's picture.
        num_copies: further objects that look like the first and carry its name; now and then there is one less.
    """

    template: str
    cue: Cue
    verb_group: Literal[1, 2]
    motion: MotionFunction
    effect: EffectName = "none"
    num_copies: int = 0

    @property
    def name(self) -> str:
        """The template without brackets, as label files write it."""
        return self.template.replace("[", "").replace("]", "")

    @property
    def num_placeholders(self) -> int:
        """How many objects the template names."""
        return self.template.count("[")

    def label(self, placeholders: Sequence[str]) -> str:
        """Return the template with its brackets filled, in lower case."""
        names = iter(placeholders)
        return re.sub(r"\[[^\]]*\]", lambda _: next(names), self.template).lower()


def _of_cue(cue: Cue, *rows: tuple[Literal[1, 2], str, MotionFunction]) -> tuple[Action, ...]:
    return tuple(Action(template=t, cue=cue, verb_group=group, motion=own) for group, t, own in rows)


def _appearance(template: str, verb_group: Literal[1, 2], effect: EffectName) -> Action:
    how = motion.in_place_motion
    return Action(template=template, cue="appearance", verb_group=verb_group, motion=how, effect=effect)


ACTIONS: tuple[Action, ...] = (
    *_of_cue(
        "position",
        (1, "Moving [something] and [something] closer to each other", motion.pair_motion(closer=True)),
        (1, "Moving [something] and [something] away from each other", motion.pair_motion(closer=False)),
        (2, "Pushing [something] from left to right", motion.line_motion("x", forward=True)),
        (2, "Pushing [something] from right to left", motion.line_motion("x", forward=False)),
        (1, "Moving [something] down", motion.line_motion("y", forward=True)),
        (1, "Moving [something] up", motion.line_motion("y", forward=False)),
    ),
    _appearance("Tearing [something] into two pieces", 1, "tear"),
    _appearance("Folding [something]", 2, "fold"),
    _appearance("Spinning [something] so it continues spinning", 1, "spin"),
    _appearance("Painting [something] another colour", 1, "paint"),
    _appearance("Poking a hole into [something]", 2, "hole"),
    *_of_cue(
        "relation",
        (1, "Picking [something] up", motion.lift_motion(pretend=False)),
        (1, "Pretending to pick [something] up", motion.lift_motion(pretend=True)),
        (2, "Putting [something] behind [something]", motion.bring_motion("behind")),
        (2, "Putting [something] in front of [something]", motion.bring_motion("in front of")),
        (2, "Putting [something] next to [something]", motion.bring_motion("next to")),
    ),
    Action(
        template="Taking [one of many similar things on the table]",
        cue="relation",
        verb_group=2,
        motion=motion.take_one_motion,
        num_copies=2,
    ),
    *_of_cue("relation", (2, "Moving [something] closer to [something]", motion.approach_motion)),
)
