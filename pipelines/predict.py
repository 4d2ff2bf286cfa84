"""`ifcar predict`: a finished run on one new video, through the live backbone instead of the cache.

Its boxes are those of a file, or found by a detector; a head that reads none needs none. Everything else comes from the
run's folder: which backbone, layer and weights, how views are sampled
and pooled, and the head. The new video is seen as a test clip of the run's cache would be: through V views, none of
them augmented, with features rounded to float16 and logits averaged over views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ifcar.cache.arrays import ArraySpec
from ifcar.cache.schema import Category
from ifcar.cache.streams import in_stream, stream_of
from ifcar.config_fields import path_of
from ifcar.counts import count_of
from ifcar.devices import choose_device
from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.one_video import OneVideo
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.decode import probe
from ifcar.extract.decoded_views import ViewDataset
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.roi import pooled_with
from ifcar.extract.tracks import Tracks
from ifcar.pipelines.detection.file_boxes import check_boxes, use_of_boxes
from ifcar.pipelines.detection.video_boxes import (
    boxes_found,
    boxes_of_file,
    carried,
    detector_config,
    differing,
)
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.runs.answers import Answer, answer_of, answered, asked_about, members_of, on_stream
from ifcar.pipelines.runs.data import RunData
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.new_video import live_features, view_arrays
from ifcar.pipelines.runs.questions import PredictConfig
from ifcar.pipelines.runs.recipe import Recipe, read_recipe

DEFAULT_TOP = 5
_NO_BOX = "no sampled frame has a box; the boxes did not enter the prediction"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a run says about one video.

    Args:
        clip_id: the clip's id in the boxes file.
        answers: one about the clip; of a run that learned labels over instances one about each subject, or about every
            instance where none is a subject.
        num_views: views that were averaged.
        num_frames: T, frames of a view.
        num_subjects: subject slots with a box in some sampled frame.
        num_objects: the same for objects.
        num_tracks: instances that the boxes file gives the clip.
        notes: what is strange about the boxes, one line each.
    """

    clip_id: str
    answers: Sequence[Answer]
    num_views: int
    num_frames: int
    num_subjects: int
    num_objects: int
    num_tracks: int
    notes: Sequence[str]


def predict(
    run: Path | str,
    video: Path | str,
    progress: Progress,
    options: PredictConfig,
    detector: Mapping[str, Any] = MappingProxyType({}),
) -> Prediction:
    """Run backbone and head on one video; the run's cache is not needed.

    A run from boxes alone (backbone `none`) opens the video only for its size. A head that reads no features of a cache
    that has some needs no backbone weights.

    Args:
        run: folder of a finished run or ensemble.
        video: a video file, or a folder of frames 0001.jpg, ….
        progress: told about the work.
        options: the video's boxes, and what else is told and asked of it.
        detector: fields of `DetectorConfig`, of what finds the boxes where none are given; by default that which found
            the boxes of the run's training, as it was then.

    Raises:
        MissingDataError, InputError: the run, the video or the boxes cannot be used.
        CacheMismatchError: the backbone or its weights are not those that the run was trained on.
    """
    run, video = path_of(run, "run"), path_of(video, "video")
    opened = open_run(run)
    data = opened.data()
    members = on_stream(members_of(opened, data), options.stream)
    stream = members[0].stream
    asked_of = answered(opened, data, stream, options.labels)
    members = [replace(member, labels="" if asked_of is data else asked_of.labels) for member in members]
    data = data.of_stream(stream)
    num_top = _num_top(options.top, len(asked_of.classes))
    recipe = read_recipe(run, data)
    _check_run(run, recipe)
    info, weights, on = probe(video), options.weights, choose_device(options.device)
    reads = tuple(dict.fromkeys(stream_of(name)[1] for member in members for name in member.reads()))
    reads_boxes = data.over != "clip" or any(data.spec.array(name).is_by_slot for name in reads)
    clip_of_video = Clip(
        clip_id=video.name if video.is_dir() else video.stem,
        source=video,
        frame_size=(info.width, info.height),
        frames_on_clock=recipe.frames_on_clock,
    )
    boxes = _boxes(data, run, clip_of_video, recipe, options, detector, on, progress, reads_boxes=reads_boxes)
    clip_of_video = replace(clip_of_video, clip_id=boxes.clip_id)
    if boxes.of_source:
        recipe = replace(recipe, annotation_fps=None, frames_on_clock=False)
    notes = _notes_of_boxes(run, clip_of_video, boxes, info, recipe, options, reads_boxes=reads_boxes)
    if boxes.of_source:  # such a video is seen whole, and not from its first box to its last
        boxes = replace(boxes, tracks=boxes.tracks.at(np.arange(info.num_frames)))
    reads_features = data.spec.reads_features(reads)
    pooled = pooled_with(recipe.pooled) if reads_features and recipe.pooled is not None else ()
    reads = tuple(dict.fromkeys((*reads, *pooled)))
    views = _views(clip_of_video, boxes, recipe, carried(boxes, run, data.spec, reads))
    if not reads_features and weights is not None:
        raise InputError(f"--weights {weights} would be ignored: {run} reads boxes only")
    seen = [views.plan(row) for row in range(len(views))]
    arrays = view_arrays(run, data, seen, reads)
    if reads_features:
        arrays |= live_features(run, [member.path for member in members], data, recipe, views, weights, on, progress)
    arrays = {in_stream(stream, name): array for name, array in arrays.items()}
    fewer = {member.config.views for member in members} - {None, len(seen)}
    views_seen = count_of(len(seen), "view")
    notes += [f"scored by {views_seen}; the run's test clips by {own}, see views in its config" for own in fewer]
    slots = np.stack([view.categories for view in seen]).max(axis=(0, 1))  # (N,)
    boxes_seen = np.stack([view.boxes for view in seen])
    asked: Sequence[int | None] = [None] if data.over == "clip" else asked_about(slots)
    return Prediction(
        clip_id=boxes.clip_id,
        answers=tuple(answer_of(slot, members, asked_of, boxes_seen, arrays, on, num_top) for slot in asked),
        num_views=len(seen),
        num_frames=data.spec.num_frames,
        num_subjects=int((slots == Category.SUBJECT).sum()),
        num_objects=int((slots == Category.OBJECT).sum()),
        num_tracks=boxes.tracks.boxes.shape[1],
        notes=[*notes, _NO_BOX] if not slots.any() and (reads_boxes or options.boxes is not None) else notes,
    )


def _boxes(
    data: RunData,
    run: Path,
    clip: Clip,
    recipe: Recipe,
    options: PredictConfig,
    detector: Mapping[str, Any],
    device: str,
    progress: Progress,
    *,
    reads_boxes: bool,
) -> OneVideo:
    """Return the video's boxes; none where none are given and none are read."""
    if options.boxes is not None:
        if detector:
            raise InputError("--boxes and a detector's options exclude each other; give one of them")
        assert clip.source is not None
        return boxes_of_file(options.boxes, options.clip, clip.clip_id, clip.source, data.identity["dataset"])
    if options.clip is not None:
        raise InputError(f"--clip {options.clip} would be ignored: it names a clip of the file of --boxes")
    if not reads_boxes:
        if detector:
            name = next(iter(detector)).replace("_", "-")
            raise InputError(f"--{name} would be ignored: {run} reads no boxes; leave it out")
        return OneVideo(clip_id=clip.clip_id, tracks=Tracks.none())
    subjects = data.identity["dataset"].get("subjects")
    if detector and subjects is not None and recipe.detector is None and "subjects" not in detector:
        progress.say(f"subjects are boxes of the classes {subjects}, as in the training; --subjects names others")
        detector = {**detector, "subjects": tuple(name.strip().casefold() for name in subjects.split(","))}
    config = detector_config(recipe.detector, detector)
    if config is None:
        raise InputError(
            f"{run}: reads boxes, and none are given; give --boxes FILE, or let them be found by --detector NAME, one "
            "of `ifcar list detectors`"
        )
    return boxes_found(config, clip, device, progress)


def _views(clip: Clip, boxes: OneVideo, recipe: Recipe, carried: Sequence[ArraySpec]) -> ViewDataset:
    """Return the video's views.

    Boxes of a detector, or of a run on boxes of a file, are seen over all of it; others say which part is meant.
    Without a backbone there is no source, and the frames are those that were looked at.
    """
    reads, tracks = recipe.backbone.reads, boxes.tracks
    fps = recipe.annotation_fps if boxes.facts is None else boxes.facts.fps
    if not _beside_the_clip(boxes, recipe):
        return ViewDataset([clip], lambda _: tracks, fps, recipe.policy, reads=reads, carried=carried)
    return ViewDataset(
        [clip],
        lambda _: Tracks.none(),
        recipe.annotation_fps,
        recipe.policy,
        reads=reads,
        proposals=lambda _: tracks,
        proposals_fps=fps,
        carried=carried,
    )


def _beside_the_clip(boxes: OneVideo, recipe: Recipe) -> bool:
    """Return whether boxes say nothing of which frames are the clip, as in the extraction behind the run."""
    return (boxes.facts is not None or bool(recipe.boxes)) and recipe.backbone.reads != "nothing"


def _sees_all(boxes: OneVideo, recipe: Recipe) -> bool:
    """Return whether frames are sampled from all of the video, wherever its boxes are."""
    return _beside_the_clip(boxes, recipe) or (boxes.of_source and recipe.policy.sampling != "annotated")


def _check_run(run: Path, recipe: Recipe) -> None:
    if not recipe.have_classes:
        raise InputError(
            f"{run}: trained on proposals (`ifcar extract --boxes`), boxes that do not say what is a subject, which "
            "are read for the clips of a data set alone; `ifcar evaluate` scores it from its cache"
        )


def _notes_of_boxes(
    run: Path,
    clip: Clip,
    boxes: OneVideo,
    info: VideoInfo,
    recipe: Recipe,
    options: PredictConfig,
    *,
    reads_boxes: bool,
) -> list[str]:
    """Return what is strange about a video's boxes, a line each."""
    notes: list[str] = []
    if options.boxes is not None:
        assert clip.source is not None
        notes += check_boxes(options.boxes, clip, boxes, info, recipe.annotation_fps)
        notes += use_of_boxes(
            options.boxes,
            boxes,
            clip.source,
            run,
            sees_all=_sees_all(boxes, recipe),
            chosen=options.clip is not None,
            reads_boxes=reads_boxes,
        )
    notes += boxes.notes
    others = "boxes of a file" if recipe.boxes else "annotated boxes"
    other = differing(recipe.detector, boxes.facts, others)
    return [*notes, other] if other and reads_boxes else notes


def _num_top(top: int | None, num_classes: int) -> int:
    if top is None:
        return min(DEFAULT_TOP, num_classes)
    if not 1 <= top <= num_classes:
        raise InputError(f"--top is {top}; expected 1 to {num_classes}, the run's classes")
    return top
