"""Charades (Sigurdsson et al. 2016): videos of daily activities, many in each, with Action Genome's boxes.

Charades_v1_train.csv, Charades_v1_test.csv   the official split: id, subject, actions "c092 11.90 21.20;…", …
Charades_v1_classes.txt                       "c000 Holding some clothes", …
Charades_v1_480/ID.mp4                        or frames at 24 per second, Charades_v1_rgb/ID/ID-000001.jpg
annotations/                                  Action Genome's pickles, see `ifcar.extract.datasets.action_genome`
videoid2fps.json                              {ID: frames per second of ID.mp4}; for boxes on frames without videos

A clip is a whole video. Protocol `official` has every video of the lists, `action-genome` those with annotated frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ifcar.cache.protocols import ProtocolTable
from ifcar.counts import count_of
from ifcar.extract.datasets.action_genome import AnnotatedVideo, Size, read_action_genome
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.charades_files import (
    CLASSES,
    PARTS,
    RATES,
    ListedVideo,
    read_classes,
    read_rates,
    read_videos,
)
from ifcar.extract.datasets.contract import WHOLE_VIDEO_SEC, Clip, Dataset, Erratum, Listing, Progress, register_dataset
from ifcar.extract.datasets.label_tables import absent_clips, multi_labels, protocol_table
from ifcar.extract.datasets.pixel_sources import Place, find_sources
from ifcar.extract.decode import frame_size
from ifcar.extract.track_store import TrackStore
from ifcar.extract.tracks import Tracks

VIDEOS, FRAMES, ANNOTATIONS = "Charades_v1_480", "Charades_v1_rgb", "annotations"
FRAMES_PER_SECOND = 24.0


@register_dataset
class Charades(Dataset):
    """Videos or frames, the official lists and, where they are there, Action Genome's boxes."""

    name = "charades"
    summary = "Charades videos with Action Genome boxes, official split (157 actions, multi-label)"
    default_root = "charades"
    annotation_fps = None
    default_sampling = "annotated"
    errata = (
        Erratum(
            "Action Genome has two orders in its boxes: persons are x1, y1, x2, y2 and objects x, y, width, "
            "height. Each is read in its own.",
            source="person_bbox.pkl and object_bbox_and_relationship.pkl (Ji et al. 2020)",
        ),
        Erratum(
            "Frame numbers of Action Genome count the 480p video's own frames from 1, not Charades' frames "
            "at 24 a second. They are brought to the frames that are there.",
            source="the script with which Action Genome writes its frames",
        ),
        Erratum(
            "Person boxes are a detector's and not annotated: a frame may have none, or several persons.",
            source="person_bbox.pkl (Ji et al. 2020)",
        ),
        Erratum(
            "Some actions end before they begin, or after their video. Their classes count.",
            source="Charades_v1_train.csv and Charades_v1_test.csv",
        ),
    )

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._classes: dict[str, str] = {}
        self._videos: dict[str, ListedVideo] = {}
        self._sources: dict[str, Path] = {}
        self._tracks = TrackStore()
        self._annotated_sizes: dict[str, Size | None] = {}
        self._shown_sizes: dict[str, Size] = {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the lists are there."""
        self.require_files(
            (*PARTS, CLASSES),
            f"put Charades_v1_train.csv, Charades_v1_test.csv and {CLASSES} there, the 480p videos into {VIDEOS}/ or "
            f"the 24-fps frames into {FRAMES}/, and Action Genome's pickles into {ANNOTATIONS}/, or name the folder "
            "with --data-root",
        )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read lists and boxes; videos without what they need are listed and left out."""
        self._classes = read_classes(self.root / CLASSES)
        self._videos = read_videos(self.root, self._classes)
        self._sources, notes = self._find_sources() if needs_pixels else ({}, [])
        problems: list[str] = []
        digest, box_notes = hashlib.sha256(), BoxNotes()
        notes += self._read_boxes(digest, box_notes)
        clips: list[Clip] = []
        for video in self._videos:
            source = self._sources.get(video)
            if needs_pixels and source is None:
                problems.append(f"{video}: listed, but there is no {VIDEOS}/{video}.mp4 nor {FRAMES}/{video}/")
            elif not needs_pixels and self._annotated_sizes.get(video) is None:
                problems.append(
                    f"{video}: left out, no person of {ANNOTATIONS}/ states its frame size, needed without pixels"
                )
            elif source is None or video in self._tracks or video not in self._annotated_sizes:
                clips.append(self._clip(video, source))
            else:
                problems.append(
                    f"{video}: left out, its boxes count frames of {video}.mp4, whose rate is unknown; put the video "
                    f"into {VIDEOS}/, its rate into {RATES}, or extract without boxes by taking {ANNOTATIONS}/ away"
                )
        notes = box_notes.lines() + notes
        return Listing(clips=clips, notes=notes, problems=problems, digest=digest.hexdigest())

    def tracks(self, clip_id: str) -> Tracks:
        """Return a video's boxes in pixels of its source; none where Action Genome does not annotate it."""
        tracks = self._tracks.get_or_none(clip_id)
        annotated, source = self._annotated_sizes.get(clip_id), self._sources.get(clip_id)
        if annotated is None or source is None:
            return tracks
        if clip_id not in self._shown_sizes:
            self._shown_sizes[clip_id] = frame_size(source)
        scale = np.array(self._shown_sizes[clip_id], np.float32) / np.array(annotated, np.float32)
        return replace(tracks, boxes=tracks.boxes * np.tile(scale, 2))

    def num_tracks(self, clip_id: str) -> int:
        """Return how many tracks a video has."""
        return self._tracks.num_tracks(clip_id) if clip_id in self._tracks else 0

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `official` and, where there are boxes, `action-genome`; groups are subjects."""
        annotated = [video for video in self._videos if video in self._annotated_sizes]
        chosen: list[tuple[str, Iterable[str]]] = [("official", self._videos)]
        chosen += [("action-genome", annotated)] if annotated else []
        subjects = {video: row.subject for video, row in self._videos.items()}
        labels = {video: row.classes for video, row in self._videos.items()}
        space = multi_labels(list(self._classes.values()), clip_ids, labels)
        tables, notes = [], []
        for name, videos in chosen:
            split = {video: self._videos[video].split for video in videos}
            tables.append(protocol_table(name, [space], clip_ids, split, subjects, "subject"))
            notes += absent_clips(name, split, clip_ids)
        num_reversed = sum(row.reversed_actions for row in self._videos.values())
        reverse = count_of(num_reversed, "action ends before it begins", "actions end before they begin")
        notes += [f"{reverse}; the class counts"] if num_reversed else []
        return tables, notes

    def _find_sources(self) -> tuple[dict[str, Path], list[str]]:
        return find_sources(
            [Place(folder=self.root / VIDEOS, endings=(".mp4",)), Place(folder=self.root / FRAMES)],
            f"{self.root}: no pixels; put the 480p videos there as {VIDEOS}/ID.mp4 or the 24-fps frames as "
            f"{FRAMES}/ID/ID-000001.jpg, or extract boxes only with --backbone none",
        )

    def _read_boxes(self, digest: hashlib._Hash, box_notes: BoxNotes) -> list[str]:
        """Read Action Genome's boxes where they are; return what is incomplete."""
        self._tracks, self._annotated_sizes, self._shown_sizes = TrackStore(), {}, {}
        folder = self.root / ANNOTATIONS
        if not folder.is_dir():
            return []
        rates = read_rates(self.root / RATES)
        digest.update(repr(sorted(rates.items())).encode())
        strange = 0
        for found in read_action_genome(folder, digest, box_notes):
            if found.video not in self._videos:
                strange += 1
                continue
            self._annotated_sizes[found.video] = found.frame_size
            tracks = self._in_source_frames(found, rates.get(found.video))
            if tracks is not None:
                self._tracks.add(found.video, tracks)
        without = len(self._videos) - len(self._annotated_sizes)
        notes = [f"{count_of(strange, 'video is')} annotated and in neither list"] if strange else []
        if without:
            notes.append(f"{count_of(without, 'video is')} not annotated: no boxes, and in protocol official alone")
        return notes

    def _in_source_frames(self, found: AnnotatedVideo, fps: float | None) -> Tracks | None:
        """Return a video's boxes by the frame numbers of its source; None where those are not known."""
        source = self._sources.get(found.video)
        if source is None or not source.is_dir():
            return found.tracks
        if fps is None:
            return None
        # Of annotated frames that fall on the same frame, the first counts.
        frames, kept = np.unique(np.rint(found.tracks.frames * (FRAMES_PER_SECOND / fps)), return_index=True)
        return replace(found.tracks.at(found.tracks.frames[kept]), frames=frames.astype(np.int64))

    def _clip(self, video: str, source: Path | None) -> Clip:
        return Clip(
            clip_id=video,
            source=source,
            frame_size=None if source is not None else self._annotated_sizes[video],
            span_sec=None if source is None else WHOLE_VIDEO_SEC,
            source_fps=FRAMES_PER_SECOND if source is not None and source.is_dir() else None,
        )
