"""The boxes of one video: out of a file, found by a detector, or none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ifcar.cache.arrays import LAYOUT, SCORES, ArraySpec, CacheSpec, over_layout
from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.one_video import OneVideo, read_one_video
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.detected_boxes import BoxFileFacts, read_detected, read_facts
from ifcar.pipelines.detection.config import DetectorConfig
from ifcar.pipelines.detection.detection import ClipDetector
from ifcar.pipelines.progress import Progress

_STORED_AS = {"detector": "name", "detector_fps": "fps"}  # fields that a detector's identity calls otherwise
_NOT_STORED = ("detector_weights",)
_OF_ALL = ("boxes", "categories")


def carried(boxes: OneVideo, run: Path, spec: CacheSpec, reads: Sequence[str]) -> tuple[ArraySpec, ...]:
    """Return the arrays beside boxes that are read and that these tracks carry; all of them where there are none.

    Raises:
        InputError: their classes are others than those that the run learned on.
    """
    given = {array.name: array for array in (() if boxes.facts is None else boxes.facts.arrays())}
    if boxes.facts is None and not boxes.tracks.boxes.shape[1]:
        own = [array for array in spec.arrays if array.role == "layout" and not array.name.startswith(LAYOUT)]
        given = {array.name: array for array in (*own, SCORES) if array.name not in _OF_ALL}
    chosen = [SCORES] if over_layout(SCORES).name in reads and SCORES.name in given else []
    for name in reads:
        if name not in given:
            continue
        learned, now = spec.array(name).classes, given[name].classes
        if learned != now:
            raise InputError(
                f"{run}: learned on {name} of {len(learned)} classes ({', '.join(learned[1:4])}, …), and these "
                f"boxes have {len(now)} ({', '.join(now[1:4])}, …); take the detector that it was trained with"
            )
        chosen.append(given[name])
    return tuple(chosen)


def boxes_of_file(path: Path, clip: str | None, likely_id: str, source: Path, dataset: Mapping[str, Any]) -> OneVideo:
    """Return one video's boxes of a file; see `read_one_video`.

    Args:
        path: the file.
        clip: the video's name in the file; None takes `likely_id`, or the only one.
        likely_id: the name that it probably has.
        source: the video.
        dataset: identity of the dataset that the run was trained on.

    Raises:
        MissingDataError, InputError: see there, or what `ifcar detect` wrote beside the file does not belong to it.
    """
    facts = read_facts(path)
    own = DATASETS.get(dataset["name"]).takes_subjects and facts is None
    found = read_one_video(path, clip, likely_id, source, subjects=dataset.get("subjects"), own=own)
    if facts is None:
        return found
    tracks = dict(read_detected(path, facts, hashlib.sha256(), {found.clip_id}, BoxNotes()))[found.clip_id]
    assert tracks is not None
    return OneVideo(clip_id=found.clip_id, tracks=tracks, facts=facts)


def boxes_found(config: DetectorConfig, clip: Clip, device: str, progress: Progress) -> OneVideo:
    """Return what a detector finds in a clip.

    Raises:
        InputError, MissingDataError: the detector or the source cannot be used.
    """
    detector = ClipDetector(config, device=device)
    progress.say(f"{config.detector}: weights {detector.detector.description}")
    progress.start("looking for boxes", 1)
    found = detector.find(clip)
    progress.advance()
    progress.finish()
    return OneVideo(clip_id=clip.clip_id, tracks=detector.tracks(clip, found), facts=detector.facts(""))


def detector_config(stored: Mapping[str, Any] | None, given: Mapping[str, Any]) -> DetectorConfig | None:
    """Return which detector to take: as it is given, in all else as that of the boxes that a run was trained on.

    Args:
        stored: the identity of that detector; None: the run was trained on other boxes.
        given: fields that are given.

    Returns:
        The config; None where neither names a detector.

    Raises:
        InputError: options without a detector, or ones that do not fit together.
    """
    known: dict[str, Any] = {}
    if stored is not None and given.get("detector") in (None, stored.get("name")):
        names = [field.name for field in fields(DetectorConfig) if field.name not in _NOT_STORED]
        known = {name: stored.get(_STORED_AS.get(name, name)) for name in names}
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    values = {name: value for name, value in {**known, **given}.items() if value is not None}
    if "detector" in values:
        return DetectorConfig(**values)
    if given:
        name = next(iter(given)).replace("_", "-")
        raise InputError(f"--{name} would be ignored: no --detector is named, and the run's boxes are of none")
    return None


def differing(stored: Mapping[str, Any] | None, now: BoxFileFacts | None, others: str) -> str:
    """Return in what the boxes of a video were made otherwise than those of the training, empty where in nothing.

    Args:
        stored: the identity of the detector behind the training's boxes; None: they are no detector's.
        now: how the video's were found; None: they are not.
        others: what boxes that are no detector's are.
    """
    if now is None:
        return (
            "" if stored is None else f"the run was trained on boxes of {stored.get('name')}, and these are of a file"
        )
    if stored is None:
        return f"the run was trained on {others}, and these were found by {now.detector.get('name')}"
    other = [name for name in now.detector if now.detector[name] != stored.get(name)]
    return f"these boxes and those of the training differ in the detector's {', '.join(other)}" if other else ""
