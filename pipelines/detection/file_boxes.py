"""Whether a file's boxes can be those of a video, and what a run uses them for."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.one_video import OneVideo
from ifcar.extract.datasets.box_notes import in_shares, unit_note
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.frame_times import past_end, source_frames
from ifcar.extract.geometry import FULL_FRAME, boxes_to_crop
from ifcar.extract.picture_source import VideoInfo


def check_boxes(
    boxes: Path, clip: Clip, of_video: OneVideo, info: VideoInfo, annotation_fps: float | None
) -> list[str]:
    """Refuse boxes that cannot belong to the video, and return what is strange about the others.

    Single ones that reach out of the video are clipped, as in extraction.
    """
    size, tracks = (info.width, info.height), of_video.tracks
    fps = annotation_fps if of_video.facts is None else of_video.facts.fps
    if not boxes_to_crop(tracks.boxes, size, FULL_FRAME, False).any():
        there = tracks.boxes[np.isfinite(tracks.boxes).all(axis=-1)]
        if not len(there):
            raise InputError(
                f"{boxes}: clip {clip.clip_id!r}: no box has an area; expected x1, y1, x2, y2 in the video's pixels, "
                "x1 below x2 and y1 below y2"
            )
        x1, y1, x2, y2 = there[0]
        raise InputError(
            f"{boxes}: clip {clip.clip_id!r}: no box lies in the {size[0]} × {size[1]} pixels of {clip.source}, the "
            f"first is ({x1:g}, {y1:g}, {x2:g}, {y2:g}); expected x1, y1, x2, y2 in the video's pixels"
        )
    origin_sec = clip.origin_sec
    first = int(source_frames(info, fps, tracks.frames[:1], origin_sec)[0])
    if first >= info.num_frames:
        rate = "" if fps is None else f" at {fps:g} per second"
        raise InputError(
            f"{boxes}: clip {clip.clip_id!r}: the first annotated frame is number {first + 1} of {clip.source}, which "
            f"has {info.num_frames}; expected frame numbers from 1{rate}"
        )
    notes = [unit_note(f"{boxes}: clip {clip.clip_id!r}", shares=False)] if in_shares(tracks.boxes) else []
    short = past_end(None, tracks, info, fps, origin_sec)
    return [*notes, *([f"{clip.source} ends before its annotations: {short}"] if short else [])]


def use_of_boxes(
    path: Path,
    boxes: OneVideo,
    video: Path,
    run: Path,
    *,
    sees_all: bool,
    chosen: bool,
    reads_boxes: bool,
) -> list[str]:
    """Return what a file's boxes are used for where that is not plain.

    Args:
        path: the file.
        boxes: what was read.
        video: what is predicted.
        run: its folder.
        sees_all: whether frames are sampled from all of the video, wherever its boxes are.
        chosen: whether --clip names the video in the file.
        reads_boxes: whether the run reads any.

    Raises:
        InputError: they are used for nothing.
    """
    notes = []
    called = {normalize("NFC", name) for own in (video, path) for name in (own.name, own.stem)}
    if not chosen and normalize("NFC", boxes.clip_id) not in called:
        notes.append(
            f"{path} has no boxes of {video.name!r:.80}; those of {boxes.clip_id!r:.80}, the only one in it, are taken"
        )
    if reads_boxes:
        return notes
    if sees_all:
        raise InputError(
            f"--boxes {path} would be ignored: {run} reads no boxes and sees the whole video; leave it out"
        )
    return [*notes, f"{run} reads no boxes: those of {path} say only which frames it sees"]
