"""Generation of a whole toybox: videos in parallel, then annotations, splits and the mark of completeness."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import cv2

from ifcar.data_files import entries, subfolders
from ifcar.errors import InputError
from ifcar.extract.toybox.actions import ACTIONS
from ifcar.extract.toybox.activities import ACTIVITIES, NUM_RECORDINGS, RecordingPlan, plan_recording, view_tables
from ifcar.extract.toybox.annotations import annotation_records
from ifcar.extract.toybox.cameras import CAMERAS, films_of
from ifcar.extract.toybox.contact import NUM_CLIPS as NUM_CONTACT
from ifcar.extract.toybox.contact import (
    ContactPlan,
    contact_files,
    contact_frames,
    contact_records,
    plan_contact,
)
from ifcar.extract.toybox.encode import write_film, write_separate_frames, write_video
from ifcar.extract.toybox.looks import LOOKS
from ifcar.extract.toybox.render import render_frames
from ifcar.extract.toybox.scene import HEIGHT, WIDTH, Scene, build_scene
from ifcar.extract.toybox.several import NUM_CLIPS as NUM_SEVERAL
from ifcar.extract.toybox.several import SeveralPlan, build_several, plan_several, several_files
from ifcar.extract.toybox.sounds import recording_sound
from ifcar.extract.toybox.splits import NUM_CLIPS, ClipPlan, plan_clip, split_files
from ifcar.extract.toybox.sprites import Image
from ifcar.terminal import quiet_libraries
from ifcar.text_files import read_text

VERSION = 2
"""Raised whenever the same seed gives other pictures, boxes or splits."""
COMPLETE_FILE = "toybox.json"
STARTED_FILE = "toybox.started.json"

_log = logging.getLogger(__name__)

Records = list[dict[str, Any]]
Size = Literal["small", "standard", "multi", "contact", "views", "private views"]
Plan = ClipPlan | SeveralPlan | ContactPlan | RecordingPlan
FEWEST_CLIPS = {
    "small": 3 * len(ACTIONS),
    "standard": 3 * len(ACTIONS),
    "multi": 6,
    "contact": 6,
    "views": 6,
    "private views": 6,
}
MOST_CLIPS = {
    **NUM_CLIPS,
    "multi": NUM_SEVERAL,
    "contact": NUM_CONTACT,
    "views": NUM_RECORDINGS,
    "private views": NUM_RECORDINGS,
}
FILMS = {"views": "action_split_data/V1.0", "private views": "action_split_data/V1.0"}
"""Where the films are, of sizes in Home Action Genome's files; those of others are in `videos`."""


def generate_toybox(
    root: Path,
    *,
    size: Size = "small",
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    num_clips: int | None = None,
) -> None:
    """Render the generated data set into `root`, in the files of a published one; go on where a stopped run ended.

    Every video depends on (seed, clip number) only, so results are equal for any number of workers. A complete
    set of the same kind is left as it is.

    Args:
        root: folder to fill; made when missing.
        size: "small" (324 training and 162 test clips), "standard" (3,996 and 1,998), "multi" (200 and 100 clips of
            several actions), "contact" (300 and 150 clips of hands that touch objects, forwards and in reverse), in
            Something-Else's files; or "views" (160 and 80 recordings by three cameras, with sound), in Home Action
            Genome's, of which "private views" has the acts in camera ego alone and neither in the others nor in sound.
        seed: what everything random is drawn from, at least 0.
        workers: processes; None takes one for each CPU core, 1 renders in this process.
        progress: called with (videos done, videos in all) after each video.
        num_clips: generate only the first clips of the size, at least 54 of "small" and "standard", and 6 of others
            (for tests).

    Raises:
        InputError: an argument is out of range, or `root` holds another toybox or videos of another origin.
    """
    identity = _identity(size, seed, num_clips)
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, found {workers}")
    if _check_root(root, identity):
        return
    films = _films(root, size)
    films.mkdir(parents=True, exist_ok=True)
    _write_json(root / STARTED_FILE, identity)
    total = int(identity["num_clips"])
    plans = [plan_of(size, seed, number) for number in range(total)]
    annotations: dict[str, Records] = {}
    rendered = _render_all(partial(render_clip, films, size, seed), total, workers or os.cpu_count() or 1)
    for done, (plan, records) in enumerate(zip(plans, rendered, strict=True), start=1):
        annotations[plan.video_id] = records
        if progress is not None:
            progress(done, total)
    _write_tables(root, plans, annotations, identity)
    (root / STARTED_FILE).unlink()
    _log.info("toybox of %d clips is complete in %s", total, root)


def _write_tables(root: Path, plans: list[Plan], annotations: dict[str, Records], identity: dict[str, Any]) -> None:
    """Write annotations and splits, and last the file that marks the set complete."""
    recordings = [plan for plan in plans if isinstance(plan, RecordingPlan)]
    if recordings:
        for name, text in view_tables(recordings).items():
            _write_text(root / name, text)
        for plan in recordings:
            folder = root / "annotation_files/atomic_actions" / plan.video_id.partition("_")[0]
            _write_json(folder / f"{plan.video_id}__aa.json", annotations[plan.video_id])
        kinds = {"classes": len(ACTIVITIES)}
    else:
        kinds = _write_something_else(root, plans, annotations, int(identity["seed"]))
    counts = kinds | {
        "looks": len(LOOKS),
        "train": sum(plan.is_train for plan in plans),
        "test": sum(not plan.is_train for plan in plans),
        "frames": sum(len(records) for records in annotations.values()),
    }
    _write_json(root / COMPLETE_FILE, identity | {"counts": counts})


def _write_something_else(root: Path, plans: list[Plan], annotations: dict[str, Records], seed: int) -> dict[str, int]:
    """Write Something-Else's files; return how many classes they have."""
    _write_json(root / "annotations.json", annotations)
    _write_json(root / "videoid2size.json", {video_id: [WIDTH, HEIGHT] for video_id in annotations})
    single = [plan for plan in plans if isinstance(plan, ClipPlan)]
    several = [plan for plan in plans if isinstance(plan, SeveralPlan)]
    contact = [plan for plan in plans if isinstance(plan, ContactPlan)]
    files = split_files(single, seed) if single else several_files(several, seed) if several else contact_files(contact)
    for name, content in files.items():
        _write_json(root / "splits" / name, content)
    return {"classes": len(next(content for name, content in files.items() if name.endswith("/labels.json")))}


def plan_of(size: Size, seed: int, number: int) -> Plan:
    """Return what clip `number` shows."""
    if size in FILMS:
        return plan_recording(seed, number)
    if size == "contact":
        return plan_contact(seed, number)
    return plan_several(seed, number) if size == "multi" else plan_clip(seed, number)


def lay_out(shown: ClipPlan | SeveralPlan, seed: int) -> Scene:
    """Return the scene of a clip."""
    if isinstance(shown, SeveralPlan):
        return build_several(shown, seed)
    return build_scene(shown.action, shown.nouns, shown.distractor, seed, shown.number)


def render_clip(videos: Path, size: Size, seed: int, number: int) -> Records:
    """Write the video of one clip unless it is there, or its films, and return its annotation records."""
    shown = plan_of(size, seed, number)
    if isinstance(shown, RecordingPlan):
        _write_films(videos, shown, seed, private=size == "private views")
        return shown.records()
    if isinstance(shown, ContactPlan):
        _write_once(videos / f"{shown.video_id}.mp4", write_separate_frames, contact_frames(shown, seed))
        return contact_records(shown, seed)
    scene = lay_out(shown, seed)
    _write_once(videos / f"{shown.video_id}.webm", write_video, render_frames(scene, seed, number))
    return annotation_records(scene, shown.video_id, seed, number)


def _write_films(folder: Path, plan: RecordingPlan, seed: int, *, private: bool) -> None:
    """Write the film of each camera, the first one's with sound."""
    person, room, activity = plan.video_id.split("_")
    paths = [folder / person / f"{person}_{room}_v{view:03d}_{activity}.mkv" for view in range(len(CAMERAS))]
    if all(path.exists() for path in paths):
        return
    paths[0].parent.mkdir(exist_ok=True)
    sound = recording_sound(plan, seed, acts=not private)
    for path, (camera, frames) in zip(paths, films_of(plan, seed, private=private).items(), strict=True):
        _write_once(path, partial(write_film, sound=sound if camera == CAMERAS[0] else None), frames)


def _write_once(path: Path, write: Callable[[Path, Any], None], frames: Iterable[Image]) -> None:
    if not path.exists():
        partial_path = path.with_name(path.name + ".partial")
        write(partial_path, frames)
        partial_path.replace(path)


def _render_all(task: Callable[[int], Records], total: int, workers: int) -> Iterator[Records]:
    """Yield the records of clips 0, 1, … in order, from `workers` processes."""
    if workers == 1:
        yield from map(task, range(total))
        return
    pool = ProcessPoolExecutor(min(workers, total), mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        yield from pool.map(task, range(total), chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Keep to one thread, leave Ctrl-C to the parent, and end when the parent is gone, however it ended."""
    quiet_libraries()
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _films(root: Path, size: Size) -> Path:
    return root / FILMS.get(size, "videos")


def _identity(size: Size, seed: int, num_clips: int | None) -> dict[str, Any]:
    if size not in MOST_CLIPS:
        raise InputError(f"toybox size must be one of {', '.join(MOST_CLIPS)}, found {size!r}")
    if seed < 0:
        raise InputError(f"toybox seed must be at least 0, found {seed}")
    fewest, whole = FEWEST_CLIPS[size], MOST_CLIPS[size]
    if num_clips is not None and not fewest <= num_clips <= whole:
        raise InputError(f"num_clips must be from {fewest} to {whole}, found {num_clips}")
    return {"size": size, "seed": seed, "version": VERSION, "num_clips": num_clips or whole}


def _check_root(root: Path, identity: dict[str, Any]) -> bool:
    """Return True when `root` already holds the complete set; refuse a folder that holds something else."""
    for name in (COMPLETE_FILE, STARTED_FILE):
        path = root / name
        if not path.exists():
            continue
        found = _read_mark(path)
        differing = [key for key in identity if found.get(key) != identity[key]]
        if differing:
            what = ", ".join(f"{key} {found.get(key)!r} instead of {identity[key]!r}" for key in differing)
            raise InputError(
                f"{root} holds a toybox with {what}; give another folder, ask for what is there, or delete it"
            )
        if name == COMPLETE_FILE:
            return True
    films = _films(root, identity["size"])
    if not (root / STARTED_FILE).exists() and (entries(films) or subfolders(films)):
        raise InputError(f"{films} holds files that no toybox run wrote; give an empty folder")
    return False


def _read_mark(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error}); delete its folder and generate again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold an object, found {type(found).__name__}; delete its folder")
    return found


def _write_json(path: Path, content: object) -> None:
    _write_text(path, json.dumps(content, ensure_ascii=False))


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(path.name + ".partial")
    partial_path.write_text(text, encoding="utf-8")
    partial_path.replace(path)
