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
    """One class of the toybox.

    Args:
        template: Something-Something's wording, placeholders in brackets.
        cue: what tells it apart: positions only, appearance only, or relations between instances.
        verb_group: 1 or 2, the verb group of the compositional protocol.
        motion: makes the ways of its objects and hands.
        num_objects: acting objects.
        effect: what happens to the first object's picture.
        has_copies: True when the further objects look like the first and carry its name.
    """

    template: str
    cue: Cue
    verb_group: Literal[1, 2]
    motion: MotionFunction
    num_objects: int = 1
    effect: EffectName = "none"
    has_copies: bool = False

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


def _appearance(template: str, verb_group: Literal[1, 2], effect: EffectName) -> Action:
    return Action(
        template=template,
        cue="appearance",
        verb_group=verb_group,
        motion=motion.in_place_motion,
        effect=effect,
    )


ACTIONS: tuple[Action, ...] = (
    Action(
        template="Moving [something] and [something] closer to each other",
        cue="position",
        verb_group=1,
        motion=motion.pair_motion(closer=True),
        num_objects=2,
    ),
    Action(
        template="Moving [something] and [something] away from each other",
        cue="position",
        verb_group=1,
        motion=motion.pair_motion(closer=False),
        num_objects=2,
    ),
    Action(
        template="Pushing [something] from left to right",
        cue="position",
        verb_group=2,
        motion=motion.line_motion("x", forward=True),
    ),
    Action(
        template="Pushing [something] from right to left",
        cue="position",
        verb_group=2,
        motion=motion.line_motion("x", forward=False),
    ),
    Action(
        template="Moving [something] down",
        cue="position",
        verb_group=1,
        motion=motion.line_motion("y", forward=True),
    ),
    Action(
        template="Moving [something] up",
        cue="position",
        verb_group=1,
        motion=motion.line_motion("y", forward=False),
    ),
    _appearance("Tearing [something] into two pieces", 1, "tear"),
    _appearance("Folding [something]", 2, "fold"),
    _appearance("Spinning [something] so it continues spinning", 1, "spin"),
    _appearance("Painting [something] another colour", 1, "paint"),
    _appearance("Poking a hole into [something]", 2, "hole"),
    Action(
        template="Picking [something] up",
        cue="relation",
        verb_group=1,
        motion=motion.lift_motion(pretend=False),
    ),
    Action(
        template="Pretending to pick [something] up",
        cue="relation",
        verb_group=1,
        motion=motion.lift_motion(pretend=True),
    ),
    Action(
        template="Putting [something] behind [something]",
        cue="relation",
        verb_group=2,
        motion=motion.bring_motion("behind"),
        num_objects=2,
    ),
    Action(
        template="Putting [something] in front of [something]",
        cue="relation",
        verb_group=2,
        motion=motion.bring_motion("in front of"),
        num_objects=2,
    ),
    Action(
        template="Putting [something] next to [something]",
        cue="relation",
        verb_group=2,
        motion=motion.bring_motion("next to"),
        num_objects=2,
    ),
    Action(
        template="Taking [one of many similar things on the table]",
        cue="relation",
        verb_group=2,
        motion=motion.take_one_motion,
        num_objects=3,
        has_copies=True,
    ),
    Action(
        template="Moving [something] closer to [something]",
        cue="relation",
        verb_group=2,
        motion=motion.approach_motion,
        num_objects=2,
    ),
)
