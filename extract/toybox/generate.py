"""Generation of a whole toybox: videos in parallel, then annotations, splits and the mark of completeness."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import cv2

from ifcar.data_files import entries, subfolders
from ifcar.errors import InputError
from ifcar.extract.toybox.kinds import KINDS, Records, Size
from ifcar.extract.toybox.looks import LOOKS
from ifcar.extract.toybox.splits import Plan
from ifcar.terminal import quiet_libraries
from ifcar.text_files import read_text

VERSION = 2
"""Raised whenever the same seed gives other pictures, boxes or splits."""
COMPLETE_FILE = "toybox.json"
STARTED_FILE = "toybox.started.json"

_log = logging.getLogger(__name__)


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
            several actions), "contact" (300 and 150 clips of hands that touch objects, forwards and in reverse), or
            "relational" (480 and 240 clips that differ in who is where), in Something-Else's files; or "views" (160
            and 80 recordings by three cameras, with sound), in Home Action Genome's, of which "private views" has the
            acts in camera ego alone, and neither in the others nor in the sound.
        seed: what everything random is drawn from, at least 0.
        workers: processes; None takes one for each CPU core, 1 renders in this process.
        progress: called with (videos done, videos in all) after each video.
        num_clips: generate only the first clips of the size, no fewer than the kind allows (for tests).

    Raises:
        InputError: an argument is out of range, or `root` holds another toybox or videos of another origin.
    """
    identity = _identity(size, seed, num_clips)
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, found {workers}")
    if _check_root(root, identity):
        return
    videos = root / KINDS[size].folder
    videos.mkdir(parents=True, exist_ok=True)
    _write(root / STARTED_FILE, _json(identity))
    total = int(identity["num_clips"])
    plans: list[Plan] = [KINDS[size].plan(seed, number) for number in range(total)]
    annotations: dict[str, Records] = {}
    rendered = _render_all(partial(render_clip, videos, size, seed), total, workers or os.cpu_count() or 1)
    for done, (plan, records) in enumerate(zip(plans, rendered, strict=True), start=1):
        annotations[plan.video_id] = records
        if progress is not None:
            progress(done, total)
    _write_tables(root, plans, annotations, identity)
    (root / STARTED_FILE).unlink()
    _log.info("toybox of %d clips is complete in %s", total, root)


def _write_tables(root: Path, plans: list[Plan], annotations: dict[str, Records], identity: dict[str, Any]) -> None:
    """Write annotations, sizes and splits, and last the file that marks the set complete."""
    kind = KINDS[identity["size"]]
    tables = kind.tables(plans, int(identity["seed"]), annotations)
    for name, content in tables.items():
        _write(root / name, content if isinstance(content, str) else _json(content))
    classes = tables[kind.classes]
    counts = {
        "classes": len(classes.splitlines() if isinstance(classes, str) else classes),
        "looks": len(LOOKS),
        "train": sum(plan.is_train for plan in plans),
        "test": sum(not plan.is_train for plan in plans),
        "frames": sum(len(records) for records in annotations.values()),
    }
    _write(root / COMPLETE_FILE, _json(identity | {"counts": counts}))


def render_clip(videos: Path, size: Size, seed: int, number: int) -> Records:
    """Write the videos of one clip that are not there, and return its annotation records."""
    kind = KINDS[size]
    plan = kind.plan(seed, number)
    for name, write in kind.videos(plan, seed).items():
        _write_once(videos / name, write)
    return kind.records(plan, seed)


def _write_once(path: Path, write: Callable[[Path], None]) -> None:
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        partial_path = path.with_name(path.name + ".partial")
        write(partial_path)
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


def _identity(size: Size, seed: int, num_clips: int | None) -> dict[str, Any]:
    if size not in KINDS:
        raise InputError(f"toybox size must be one of {', '.join(KINDS)}, found {size!r}")
    if seed < 0:
        raise InputError(f"toybox seed must be at least 0, found {seed}")
    fewest, whole = KINDS[size].fewest_clips, KINDS[size].num_clips
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
    videos = root / KINDS[identity["size"]].folder
    if not (root / STARTED_FILE).exists() and (entries(videos) or subfolders(videos)):
        raise InputError(f"{videos} holds files that no toybox run wrote; give an empty folder")
    return False


def _read_mark(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error}); delete its folder and generate again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold an object, found {type(found).__name__}; delete its folder")
    return found


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(path.name + ".partial")
    partial_path.write_text(text, encoding="utf-8")
    partial_path.replace(path)
