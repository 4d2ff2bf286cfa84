"""What a dataset adapter gives the extraction engine, and the registry of datasets."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from ifcar.cache.arrays import PICTURE_SIZES, ArraySpec, CacheSpec
from ifcar.cache.protocols import ProtocolTable
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.tracks import Tracks
from ifcar.extract.view_content import View
from ifcar.extract.view_options import Sampling
from ifcar.registry import Registry

Progress = Callable[[int, int], None]
WHOLE_VIDEO_SEC = (0.0, math.inf)
"""Span of a clip that is all of its source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A span of video that carries labels.

    Args:
        clip_id: its name in annotations and splits.
        source: video file or folder of frames; None when there are no pixels. Clips may share one.
        frame_size: (width, height) in pixels, when known without opening the source.
        span_sec: (start, stop) in seconds of the source's clock that the clip covers, stop perhaps infinite; None: from
            its first annotated frame to its last, or all of the source where it has none. Boxes outside of the span
            are not seen.
        source_fps: frames per second of a folder of frames; None: the dataset's `annotation_fps`. Video files state
            their own.
        frames_on_clock: see `Dataset.frames_on_clock`.
        segment: name of the stretch of time that it shows, which clips of other cameras may share; "": none but its
            own. A part of a protocol, held out or not, has all clips of a segment or none.
        camera: name of the camera that saw it, as "ego"; "" where there is one.
    """

    clip_id: str
    source: Path | None
    frame_size: tuple[int, int] | None
    span_sec: tuple[float, float] | None = None
    source_fps: float | None = None
    frames_on_clock: bool = False
    segment: str = ""
    camera: str = ""

    def __post_init__(self) -> None:
        if self.span_sec is not None and not 0 <= self.span_sec[0] < self.span_sec[1]:
            raise InputError(f"clip {self.clip_id!r}: its span is {self.span_sec} s; expected 0 <= start < stop")
        if self.source_fps is not None and not 0 < self.source_fps < math.inf:
            raise InputError(f"clip {self.clip_id!r}: {self.source_fps} frames per second; expected more than 0")

    @property
    def origin_sec(self) -> float | None:
        """The second of the source's clock that annotated frame 0 belongs to; None: that of its first frame."""
        return 0.0 if self.frames_on_clock else None


@dataclass(frozen=True, slots=True)
class Erratum:
    """What is known to be odd about a data set as it is published.

    Args:
        text: one line: what is odd, and what the reader makes of it.
        source: where it is published, or what it was measured on.
    """

    text: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Everything a dataset holds.

    Args:
        clips: in cache order.
        notes: what concerns the data as a whole, one line each: of its boxes, of files that are not read.
        problems: clips left out and files not found, one line each; never fatal.
        digest: SHA-256 over the annotations, part of the cache's fingerprint.
    """

    clips: Sequence[Clip]
    notes: Sequence[str] = field(default_factory=tuple)
    problems: Sequence[str] = field(default_factory=tuple)
    digest: str = ""


class Dataset(ABC):
    """Files on disk, read as clips, tracks and protocols.

    Attributes:
        name: the registered name.
        summary: one line for `ifcar list datasets`.
        default_root: folder under the data directory.
        default_backbone: backbone that `extract` takes when none is named.
        default_weights: weights that `extract` takes when none are named: the first of them that the backbone has and
            that can be had.
        default_frames: T that `extract` takes when it is not named.
        default_crop: side of the crop in pixels that `extract` takes when none is named.
        mirror_safe: whether no class tells left from right, so that mirrored clips keep their labels.
        annotation_fps: frame rate that annotated frame numbers count in, for sources of another rate; None: they are
            the frames of the source itself, from 0.
        frames_on_clock: whether annotated frame numbers count from second 0 of the source's clock at exactly their
            rate, as seconds do, and not from its first frame, which a file may show later, at a rate roughly stated.
        default_sampling: how `extract` samples the frames of a view when that is not named, see `ViewPolicy`.
        track_arrays: arrays beside boxes and categories whose values its tracks carry, with the axes T, N and then
            numbers, or (h, w) for pictures over the frame, which follow a view's crop. Known when the clips are listed.
        num_instances: N, the slots of a row of the cache that clips are listed for; None: for no cache. A dataset whose
            instances have labels lists a clip with more of them several times, or says what is lost.
        takes_subjects: whether it can be told which classes of its boxes are subjects.
        subjects: these, with commas between; None: hands and persons.
        view_arrays: arrays that `arrays_of_view` makes, with the axes T, N, h, w and numbers. Known when the clips are
            listed.
        errata: what is known to be odd about the data set as it is published.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    default_root: ClassVar[str]
    default_backbone: ClassVar[str] = "i3d_r50"
    default_weights: ClassVar[tuple[str, ...]] = ("published",)
    default_frames: ClassVar[int] = 8
    default_crop: ClassVar[int] = 224
    mirror_safe: ClassVar[bool] = False
    annotation_fps: ClassVar[float | None] = 12.0
    frames_on_clock: ClassVar[bool] = False
    default_sampling: ClassVar[Sampling] = "segments"
    errata: ClassVar[Sequence[Erratum]] = ()
    track_arrays: Sequence[ArraySpec] = ()
    view_arrays: Sequence[ArraySpec] = ()
    num_instances: int | None = None
    takes_subjects: ClassVar[bool] = False
    subjects: str | None = None

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def prepare(self, progress: Progress | None = None) -> None:
        """Make the files (generated data) or check that they are there.

        Raises:
            MissingDataError: a file is missing; the message says what to download and where to put it.
        """

    def require_files(self, names: Iterable[str], what_to_do: str) -> None:
        """Raise MissingDataError, which says what to do, for the first of these files that the root lacks."""
        for name in names:
            if not (self.root / name).is_file():
                raise MissingDataError(f"{self.root}: no {name}; {what_to_do}")

    @abstractmethod
    def listing(self, *, needs_pixels: bool) -> Listing:
        """Read the annotations and list the clips."""

    @abstractmethod
    def tracks(self, clip_id: str) -> Tracks:
        """Return the boxes of a listed clip."""

    def annotation_files(self) -> Sequence[Path] | None:
        """Return every file that listing, tracks and protocols follow from, and the folders of the pixels.

        A large data set whose class itself defines this is read once, and from then on from a table beside the cache as
        long as none of these has changed, see `ifcar.extract.annotation_table`. One that is not there is named all the
        same. None: it is read at every start.
        """
        return None

    def num_tracks(self, clip_id: str) -> int:
        """Return how many tracks a listed clip has; the source is not opened for it."""
        return int(self.tracks(clip_id).boxes.shape[1])

    @abstractmethod
    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return the protocols over these clips, and one line for everything about them that is incomplete."""

    def arrays_of_view(self, clip: Clip, view: View) -> Mapping[str, NDArray[Any]]:
        """Return the `view_arrays` of a view of a clip, by name, in the coordinates of its crop.

        What they are made of belongs in the listing's digest.
        """
        return {}

    def complete(self, clip: Clip, view: View) -> View:
        """Return a view with the dataset's own arrays.

        Raises:
            InputError: `arrays_of_view` returned something else than the dataset lists.
        """
        if not self.view_arrays:
            return view
        num_frames, num_instances = view.categories.shape
        sizes = {"T": num_frames, "N": num_instances, **PICTURE_SIZES}
        spec = CacheSpec(sizes=sizes, arrays=tuple(self.view_arrays))
        own = self.arrays_of_view(clip, view)
        spec.check(own)
        return replace(view, arrays={**view.arrays, **own})


DATASETS: Registry[type[Dataset]] = Registry("dataset")


def register_dataset(dataset: type[Dataset]) -> type[Dataset]:
    """Class decorator: add the dataset to `DATASETS` under its name."""
    return DATASETS.register(dataset.name, dataset, dataset.__module__)
