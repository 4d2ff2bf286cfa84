"""What a detector finds in a clip: boxes in the frames that it looks at, and their tracks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar import __version__
from ifcar.errors import InputError, nearest_of
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.detected_boxes import BoxFileFacts, records_of, tracks_of
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.decode import open_source
from ifcar.extract.decoded_views import clip_info
from ifcar.extract.detectors.catalog import load_detector
from ifcar.extract.detectors.suppression import suppressed
from ifcar.extract.frame_times import annotated_frames, clock_of, frames_of_span, source_frames
from ifcar.extract.limits import DecodeError
from ifcar.extract.picture_source import PictureSource, VideoInfo
from ifcar.extract.subjects import SUBJECTS
from ifcar.extract.tracks import Tracks
from ifcar.extract.two_stage import NO_TRACK, link_two_stage
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.detection.config import DetectorConfig
from ifcar.pipelines.folders import folder

VERSIONED_PACKAGES = ("torch", "torchvision", "opencv-python-headless", "numpy", "av")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was found in a clip.

    Args:
        size: (width, height) of its frames.
        frames: (F,) frame numbers from 0 at the detector's rate.
        boxes: of each frame.
        tracks: of each frame, the track of each box; negative: of none.
    """

    size: tuple[int, int]
    frames: NDArray[np.int64]
    boxes: Sequence[FrameDetections]
    tracks: Sequence[NDArray[np.int64]]

    @property
    def num_tracks(self) -> int:
        """Return how many tracks there are."""
        return max((int(own.max(initial=NO_TRACK)) for own in self.tracks), default=NO_TRACK) + 1

    @property
    def best_score(self) -> float:
        """Return the highest score of all boxes, 0 where there are none."""
        return max((float(own.scores.max(initial=0.0)) for own in self.boxes), default=0.0)


class ClipDetector:
    """A detector, loaded, that looks at clips.

    Args:
        config: which one, and what is kept.
        batch_size: pictures per forward pass.
        device: "cpu", "cuda", ….

    Raises:
        InputError, MissingDataError: no such detector, weights that do not fit, or classes that it does not know.
    """

    def __init__(self, config: DetectorConfig, *, device: str, batch_size: int = 8) -> None:
        self.config, self.batch_size, self._link = config, batch_size, config.link()
        self.detector = load_detector(
            config.detector,
            weights=None if config.detector_weights is None else str(config.detector_weights),
            phrases=config.phrases,
            least_score=self._link.score,
            device=device,
            weights_dir=folder("weights"),
        )
        known = self.detector.classes
        subjects = () if config.subjects == SUBJECTS else config.subjects  # which need not be there
        for flag, names in (("--classes", config.classes), ("--subjects", subjects)):
            for name in names:
                if name not in known[1:]:
                    raise InputError(f"{flag} {name}: no class of {config.detector}{nearest_of(name, known[1:])}")
        self._kept = np.isin(np.arange(len(known)), [known.index(name) for name in config.classes or known[1:]])

    @property
    def has_subjects(self) -> bool:
        """Return whether some class that is kept is one of subjects."""
        kept = [self.detector.classes[number] for number in np.flatnonzero(self._kept)]
        return bool(set(kept) & set(self.config.subjects))

    def identity(self) -> dict[str, Any]:
        """Return what decides which boxes are found, as JSON values."""
        return {
            "name": self.config.detector,
            "weights": self.detector.identity,
            "phrases": list(self.config.phrases),
            "subjects": list(self.config.subjects),
            "classes": list(self.config.classes),
            "fps": self.config.detector_fps,
            "box_overlap": self.config.box_overlap,
            **to_plain(self._link),
        }

    def facts(self, boxes_sha256: str) -> BoxFileFacts:
        """Return what a file of these boxes says of itself."""
        return BoxFileFacts(
            boxes_sha256=boxes_sha256,
            detector=self.identity(),
            classes=self.detector.classes,
            has_masks=self.detector.has_masks,
            fps=self.config.detector_fps,
        )

    def find(self, clip: Clip) -> Found:
        """Look at a clip.

        Raises:
            InputError: its source cannot be read, or nothing of the clip lies within it.
        """
        assert clip.source is not None
        with open_source(clip.source) as source:
            info = clip_info(clip, source)
            frames, shown = self._frames(clip, info)
            wanted = sorted(set(shown.tolist()))
            found = dict(zip(wanted, self._of_pictures(source, wanted), strict=True))
        boxes = [found[number] for number in shown.tolist()]
        tracks = link_two_stage(boxes, self._link)
        return Found(size=(info.width, info.height), frames=frames, boxes=boxes, tracks=tracks)

    def records(self, clip: Clip, found: Found) -> list[dict[str, Any]]:
        """Return what was found as records of a file."""
        classes, subjects = self.detector.classes, self.config.subjects
        return records_of(clip.clip_id, found.frames, found.boxes, found.tracks, classes, subjects)

    def tracks(self, clip: Clip, found: Found) -> Tracks:
        """Return what was found as tracks, the same as out of a file."""
        return tracks_of(clip.clip_id, self.records(clip, found), self.facts(""))

    def _frames(self, clip: Clip, info: VideoInfo) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the frame numbers at the detector's rate that the clip's frames are nearest to, and their pictures."""
        fps, origin_sec = self.config.detector_fps, clip.origin_sec
        start, stop = 0, info.num_frames
        if clip.span_sec is not None:
            start, stop = frames_of_span(clip.span_sec, clock_of(info, fps))
        numbers = np.unique(annotated_frames(info, fps, np.arange(start, stop), origin_sec))
        numbers = numbers[numbers >= 0]
        return numbers, source_frames(info, fps, numbers, origin_sec).clip(start, stop - 1)

    def _of_pictures(self, source: PictureSource, wanted: Sequence[int]) -> Iterator[FrameDetections]:
        with closing(source.pictures(wanted)) as pictures:
            size: tuple[int, int] | None = None
            while batch := list(itertools.islice(pictures, self.batch_size)):
                for number, picture in batch:
                    size = size or picture.size
                    if picture.size != size:
                        raise DecodeError(
                            f"{source.path}: frame {number} is {picture.width} × {picture.height}, an earlier one "
                            f"{size[0]} × {size[1]}; expected one size throughout"
                        )
                arrays = [np.asarray(picture.convert("RGB")) for _, picture in batch]
                assert size is not None
                yield from (self._sound(found, size) for found in self.detector.detect(arrays))

    def _sound(self, found: FrameDetections, size: tuple[int, int]) -> FrameDetections:
        """Return the boxes that are kept, cut at the picture's border: one of each thing, by falling score."""
        inside = found.boxes.clip(0, np.array([*size, *size], np.float32))
        has_area = (np.round(inside[:, 2:], 2) > np.round(inside[:, :2], 2)).all(axis=1)
        is_kept = self._kept[found.classes] & has_area & (found.scores >= self._link.score)
        found = FrameDetections.of(inside, found.scores, found.classes, found.masks).at(np.flatnonzero(is_kept))
        return found.at(suppressed(found.boxes, found.scores, found.classes, self.config.box_overlap))


def package_versions() -> dict[str, str]:
    """Return the versions of what finds boxes."""
    return {"ifcar": __version__} | {name: version(name) for name in VERSIONED_PACKAGES}
