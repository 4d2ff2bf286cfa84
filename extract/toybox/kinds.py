"""The kinds of toybox: how many clips each has, what a clip shows, and which files go with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from ifcar.extract.toybox import contact, relational, several, splits
from ifcar.extract.toybox.actions import ACTIONS
from ifcar.extract.toybox.annotations import annotation_records
from ifcar.extract.toybox.encode import write_separate_frames, write_video
from ifcar.extract.toybox.render import render_frames
from ifcar.extract.toybox.scene import Scene, build_scene
from ifcar.extract.toybox.sprites import Image

Size = Literal["small", "standard", "multi", "contact", "relational"]
Records = list[dict[str, Any]]


class Plan(Protocol):
    """What one clip shows."""

    @property
    def number(self) -> int:
        """0-based number that, with the seed, decides all of its content."""

    @property
    def video_id(self) -> str:
        """Its name in all files."""

    @property
    def is_train(self) -> bool:
        """Whether it is for training."""


P = TypeVar("P", bound=Plan)


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[P]):
    """One kind.

    Args:
        num_clips: of the whole set.
        fewest_clips: that a part of it may have (for tests).
        plan: of (seed, number): what a clip shows.
        frames: of (plan, seed): its pictures in order.
        records: of (plan, seed): its records in annotations.json.
        files: of (plans, seed): label and split files by their path below `splits/`.
        suffix: of its videos.
        write: writes one.
    """

    num_clips: int
    fewest_clips: int
    plan: Callable[[int, int], P]
    frames: Callable[[P, int], Iterable[Image]]
    records: Callable[[P, int], Records]
    files: Callable[[Sequence[P], int], dict[str, Any]]
    suffix: str = ".webm"
    write: Callable[[Path, Iterable[Image]], None] = write_video


def lay_out(plan: splits.ClipPlan, seed: int) -> Scene:
    """Return the scene of a clip of one action."""
    return build_scene(plan.action, plan.nouns, plan.distractor, seed, plan.number)


def _annotated(num_clips: int, plan: Callable[[int, int], P], lay_out: Callable[[P, int], Scene]) -> dict[str, Any]:
    """Return the fields of a kind whose clips are rendered and annotated from a scene, with an annotator's faults."""
    return {
        "num_clips": num_clips,
        "plan": plan,
        "frames": lambda plan, seed: render_frames(lay_out(plan, seed), seed, plan.number),
        "records": lambda plan, seed: annotation_records(lay_out(plan, seed), plan.video_id, seed, plan.number),
    }


def _single(size: str) -> Kind[splits.ClipPlan]:
    fields = _annotated(splits.NUM_CLIPS[size], splits.plan_clip, lay_out)
    return Kind(fewest_clips=3 * len(ACTIONS), files=splits.split_files, **fields)


KINDS: Mapping[Size, Kind[Any]] = {
    "small": _single("small"),
    "standard": _single("standard"),
    "multi": Kind(
        fewest_clips=6,
        files=several.several_files,
        **_annotated(several.NUM_CLIPS, several.plan_several, several.build_several),
    ),
    "contact": Kind(
        num_clips=contact.NUM_CLIPS,
        fewest_clips=6,
        plan=contact.plan_contact,
        frames=contact.contact_frames,
        records=contact.contact_records,
        files=contact.contact_files,
        suffix=".mp4",
        write=write_separate_frames,
    ),
    "relational": Kind(
        num_clips=relational.NUM_CLIPS,
        fewest_clips=2 * len(relational.PAIRS),
        plan=relational.plan_relational,
        frames=relational.relational_frames,
        records=relational.relational_records,
        files=relational.relational_files,
    ),
}
