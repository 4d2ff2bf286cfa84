"""The kinds of toybox: how many clips each has, what a clip shows, and which files it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from ifcar.extract.toybox import activities, contact, relational, several, splits
from ifcar.extract.toybox.actions import ACTIONS
from ifcar.extract.toybox.annotations import annotation_records
from ifcar.extract.toybox.cameras import CAMERAS, films_of
from ifcar.extract.toybox.encode import write_film, write_separate_frames, write_video
from ifcar.extract.toybox.render import render_frames
from ifcar.extract.toybox.scene import HEIGHT, WIDTH, Scene, build_scene
from ifcar.extract.toybox.sounds import recording_sound
from ifcar.extract.toybox.sprites import Image

Size = Literal["small", "standard", "multi", "contact", "relational", "views", "private views"]
Records = list[dict[str, Any]]


P = TypeVar("P", bound=splits.Plan)


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[P]):
    """One kind.

    Args:
        num_clips: of the whole set.
        fewest_clips: that a part of it may have (for tests).
        plan: of (seed, number): what a clip shows.
        videos: of (plan, seed): what writes each of its videos, by their path below the folder of videos.
        records: of (plan, seed): its annotations.
        tables: of (plans, seed, annotations by video id): text and JSON files by their path.
        classes: path of the one of these that lists the classes.
        folder: of the videos.
    """

    num_clips: int
    fewest_clips: int
    plan: Callable[[int, int], P]
    videos: Callable[[P, int], Mapping[str, Callable[[Path], None]]]
    records: Callable[[P, int], Records]
    tables: Callable[[Sequence[P], int, Mapping[str, Records]], dict[str, Any]]
    classes: str
    folder: str = "videos"


def lay_out(plan: splits.ClipPlan, seed: int) -> Scene:
    """Return the scene of a clip of one action."""
    return build_scene(plan.action, plan.nouns, plan.distractor, seed, plan.number)


def _something_else(
    frames: Callable[[P, int], Iterable[Image]],
    files: Callable[[Sequence[P], int], dict[str, Any]],
    classes: str,
    suffix: str = ".webm",
    write: Callable[[Path, Iterable[Image]], None] = write_video,
) -> dict[str, Any]:
    """Return the fields of a kind in Something-Else's files, of which `files` gives those below `splits/`."""

    def videos(plan: P, seed: int) -> Mapping[str, Callable[[Path], None]]:
        return {f"{plan.video_id}{suffix}": lambda path: write(path, frames(plan, seed))}

    def tables(plans: Sequence[P], seed: int, annotations: Mapping[str, Records]) -> dict[str, Any]:
        sizes = {video_id: [WIDTH, HEIGHT] for video_id in annotations}
        own = {f"splits/{name}": content for name, content in files(plans, seed).items()}
        return {"annotations.json": annotations, "videoid2size.json": sizes, **own}

    return {"videos": videos, "tables": tables, "classes": f"splits/{classes}/labels.json"}


def _annotated(
    num_clips: int,
    plan: Callable[[int, int], P],
    lay_out: Callable[[P, int], Scene],
    files: Callable[[Sequence[P], int], dict[str, Any]],
) -> dict[str, Any]:
    """Return the fields of a kind whose clips are rendered and annotated from a scene, with an annotator's faults."""

    def frames(plan: P, seed: int) -> Iterable[Image]:
        return render_frames(lay_out(plan, seed), seed, plan.number)

    def records(plan: P, seed: int) -> Records:
        return annotation_records(lay_out(plan, seed), plan.video_id, seed, plan.number)

    return {"num_clips": num_clips, "plan": plan, "records": records, **_something_else(frames, files, "compositional")}


def _single(size: str) -> Kind[splits.ClipPlan]:
    fields = _annotated(splits.NUM_CLIPS[size], splits.plan_clip, lay_out, splits.split_files)
    return Kind(fewest_clips=3 * len(ACTIONS), **fields)


def _views(*, private: bool) -> Kind[activities.RecordingPlan]:
    """Return a kind in Home Action Genome's files, of which "private" shows the acts to the first camera alone."""

    def videos(plan: activities.RecordingPlan, seed: int) -> Mapping[str, Callable[[Path], None]]:
        films = cache(lambda: films_of(plan, seed, private=private))

        def write(path: Path, camera: str) -> None:
            heard = recording_sound(plan, seed, acts=not private) if camera == CAMERAS[0] else None
            write_film(path, films()[camera], heard)

        person, room, activity = plan.video_id.split("_")
        paths = (f"{person}/{person}_{room}_v{view:03d}_{activity}.mkv" for view in range(len(CAMERAS)))
        return {path: partial(write, camera=camera) for path, camera in zip(paths, CAMERAS, strict=True)}

    return Kind(
        num_clips=activities.NUM_RECORDINGS,
        fewest_clips=6,
        plan=activities.plan_recording,
        videos=videos,
        records=lambda plan, _: plan.records(),
        tables=activities.view_tables,
        classes="classInd.txt",
        folder="action_split_data/V1.0",
    )


KINDS: Mapping[Size, Kind[Any]] = {
    "small": _single("small"),
    "standard": _single("standard"),
    "multi": Kind(
        fewest_clips=6,
        **_annotated(several.NUM_CLIPS, several.plan_several, several.build_several, several.several_files),
    ),
    "contact": Kind(
        num_clips=contact.NUM_CLIPS,
        fewest_clips=6,
        plan=contact.plan_contact,
        records=contact.contact_records,
        **_something_else(
            contact.contact_frames, contact.contact_files, "contact", suffix=".mp4", write=write_separate_frames
        ),
    ),
    "relational": Kind(
        num_clips=relational.NUM_CLIPS,
        fewest_clips=2 * len(relational.PAIRS),
        plan=relational.plan_relational,
        records=relational.relational_records,
        **_something_else(relational.relational_frames, relational.relational_files, "relational"),
    ),
    "views": _views(private=False),
    "private views": _views(private=True),
}
