"""VLOG (Fouhey et al. 2018): everyday interactions, of which each clip shows some; which of 30 objects a hand touches.

Lists and masks: see `ifcar.extract.datasets.vlog_files`. Videos are videos/PATH/clip.mp4. A clip is a whole video.
Facts that the reader relies on: masks count at exactly 30 a second of the video's clock, whatever its own rate; they
and their boxes cover the squashed whole frame, 100 × 100; the official evaluation leaves out what is inconclusive, and
ranks clips that touch nothing where they score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ifcar.cache.arrays import MASKS, object_classes
from ifcar.cache.protocols import UNKNOWN, LabelSpace, ProtocolTable
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.errors import MissingDataError
from ifcar.extract.coco import CLASSES, MASK_SIDE
from ifcar.extract.datasets.contract import WHOLE_VIDEO_SEC, Clip, Dataset, Erratum, Listing, Progress, register_dataset
from ifcar.extract.datasets.label_tables import absent_clips, protocol_table
from ifcar.extract.datasets.text_rows import class_names
from ifcar.extract.datasets.vlog_files import (
    LABEL_NAMES,
    LABELS,
    MANIFEST,
    SPLITS,
    UPLOADERS,
    find_files,
    read_lines,
    read_manifest,
    read_masks,
    read_splits,
    read_targets,
)
from ifcar.extract.decode import frame_size
from ifcar.extract.tracks import Tracks

VIDEOS, MASK_FILES = "videos", "masks/preds_100x100_50"
PROTOCOLS = {"official": ({1, 2, 3}, {0}), "orn-val": ({1, 2}, {3})}
"""Training and test splits; the second is that of Baradel et al. 2018."""


@register_dataset
class Vlog(Dataset):
    """Videos, the official lists and, where they are there, Mask R-CNN's masks."""

    name = "vlog"
    summary = "VLOG with Mask R-CNN masks: which of 30 objects a hand touches (multi-label)"
    default_root = "vlog"
    mirror_safe = True
    annotation_fps = 30.0
    frames_on_clock = True
    errata = (
        Erratum(
            "Masks count at exactly 30 a second, whatever the video's rate: 92 frames at 29 a second have 95 "
            "masks, 154 at 23 have 201. They are matched by time.",
            source="two published clips, counted",
        ),
        Erratum(
            "6,817 of 113,839 paths do not follow from the ends of their video's id, and a folder's letters "
            "may have another case than in the list. Paths are taken as listed, and in any case.",
            source="meta/manifest.txt, counted",
        ),
        Erratum(
            "A label of 0 is inconclusive, and not a negative, which is −1. It is left out of the loss and "
            "of every measure.",
            source="meta/hand_object/hand_object.npy and the official evaluation",
        ),
    )

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._lines: dict[str, int] = {}
        self._classes: list[str] = []
        self._sources: dict[str, Path] = {}
        self._masks: dict[str, Path] = {}
        self._last: tuple[str, Tracks] | None = None

    def prepare(self, progress: Progress | None = None) -> None:
        """Check that the lists are there."""
        self.require_files(
            (MANIFEST, SPLITS, LABEL_NAMES),
            "download VLOG's annotations (version 1.1) and put their meta/ there, its videos as "
            f"{VIDEOS}/PATH/clip.mp4 and masks as {MASK_FILES}/PATH/clip.pkl, or name the folder with --data-root",
        )

    def listing(self, *, needs_pixels: bool) -> Listing:
        """List the clips of the manifest whose videos are there; without pixels, those with masks."""
        listed = read_manifest(self.root / MANIFEST)
        self._classes = class_names(self.root / LABEL_NAMES, hashlib.sha256())
        self._lines = {clip_id: line for line, clip_id in enumerate(listed)}
        self._masks = find_files(self.root / MASK_FILES, listed, "clip.pkl")
        self._sources = find_files(self.root / VIDEOS, listed, "clip.mp4") if needs_pixels else {}
        self._last = None
        self.track_arrays = (MASKS, object_classes(CLASSES)) if self._masks else ()
        if needs_pixels and not self._sources:
            raise MissingDataError(
                f"{self.root / VIDEOS}: none of {len(listed):,} videos; download VLOG's clips and put them there as "
                "PATH/clip.mp4, or extract boxes and masks only with --backbone none"
            )
        kept = self._sources if needs_pixels else self._masks
        clips = [
            Clip(
                clip_id=clip_id,
                source=self._sources.get(clip_id),
                frame_size=None if needs_pixels else (MASK_SIDE, MASK_SIDE),
                span_sec=WHOLE_VIDEO_SEC if needs_pixels else None,
                frames_on_clock=self.frames_on_clock,
            )
            for clip_id in listed
            if clip_id in kept
        ]
        problems = []
        if len(clips) < len(listed):
            where = f"{VIDEOS}/PATH/clip.mp4" if needs_pixels else f"{MASK_FILES}/PATH/clip.pkl"
            first = next(clip_id for clip_id in listed if clip_id not in kept)
            count = count_of(len(listed) - len(clips), "is", of=f"{len(listed):,} clips")
            problems.append(f"{count} left out, without {where}, the first: {first}")
        notes = self._notes_of_masks([clip.clip_id for clip in clips])
        return Listing(clips=clips, notes=notes, problems=problems, digest=self._digest(clips))

    def tracks(self, clip_id: str) -> Tracks:
        """Return a clip's detections with masks and classes, frame by frame; none where it has no masks.

        Raises:
            InputError: the clip's masks are damaged.
        """
        if clip_id not in self._masks:
            return Tracks.none()
        if self._last is None or self._last[0] != clip_id:
            tracks = read_masks(self._masks[clip_id])
            source = self._sources.get(clip_id)
            size = (MASK_SIDE, MASK_SIDE) if source is None else frame_size(source)
            scale = np.array((*size, *size), np.float32) / MASK_SIDE
            self._last = clip_id, replace(tracks, boxes=(tracks.boxes * scale).astype(np.float32))
        return self._last[1]

    def num_tracks(self, clip_id: str) -> int:
        """Return 1 for a clip with masks: detections are no tracks, and counting them would read every file."""
        return int(clip_id in self._masks)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `official` and the validation protocol of ORN; groups are uploaders."""
        num_clips, notes = len(self._lines), []
        splits = read_splits(self.root / SPLITS, num_clips)
        targets = np.full((num_clips, len(self._classes)), UNKNOWN, np.int8)
        if (self.root / LABELS).exists():
            targets = read_targets(self.root / LABELS, num_clips, self._classes)
        else:
            notes.append(f"clips have no labels, as {self.root / LABELS} is missing; download VLOG's annotations")
        groups = None
        if (self.root / UPLOADERS).is_file():
            groups = dict(zip(self._lines, read_lines(self.root / UPLOADERS, num_clips), strict=True))
        else:
            notes.append(
                f"{self.root / UPLOADERS} is missing, so that clips of one uploader may be both trained on and held out"
            )
        space = LabelSpace(
            kind="multi",
            classes=tuple(self._classes),
            targets=targets[[self._lines[clip_id] for clip_id in clip_ids]],
            unlabelled="negative",
        )
        tables = []
        for name, (train, test) in PROTOCOLS.items():
            split = {
                clip_id: Split.TRAIN if own in train else Split.TEST if own in test else Split.NONE
                for clip_id, own in zip(self._lines, splits, strict=True)
            }
            tables.append(protocol_table(name, [space], clip_ids, split, groups, "uploader"))
            notes += absent_clips(name, split, clip_ids)
        return tables, notes

    def _notes_of_masks(self, clip_ids: Sequence[str]) -> list[str]:
        without = [clip_id for clip_id in clip_ids if clip_id not in self._masks]
        notes = []
        if without:
            count = count_of(len(without), "clip has")
            notes.append(
                f"{count} no masks, and so no boxes, the first: {without[0]}; put masks there as "
                f"{self.root / MASK_FILES}/PATH/clip.pkl"
            )
        if len(without) < len(clip_ids):
            notes.append(
                "slots hold each frame's detections, persons first, then by score; what finds no slot is left out"
            )
        return notes

    def _digest(self, clips: Sequence[Clip]) -> str:
        """Return a SHA-256 over which clips have masks, and of how many bytes: to read them all takes too long."""
        digest = hashlib.sha256()
        for clip in clips:
            masks = self._masks.get(clip.clip_id)
            digest.update(f"{clip.clip_id}\n{-1 if masks is None else masks.stat().st_size}\n".encode())
        return digest.hexdigest()
