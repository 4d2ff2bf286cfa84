"""What is extracted: the dataset that the options name, read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ifcar import __version__
from ifcar.cache.arrays import PICTURE, ArraySpec
from ifcar.cache.clips import CAMERAS, IDS, SEGMENTS, ClipTable
from ifcar.cache.protocols import ProtocolTable, protocol_digest
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.errors import InputError, MissingDataError, nearest_of
from ifcar.extract import annotation_writing
from ifcar.extract.annotation_table import AnnotationTable, Key, TabledClips, column, key_of, open_table
from ifcar.extract.backbones.spec import Reads
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Clip, Dataset, Listing
from ifcar.extract.datasets.proposals import Proposals, read_proposals
from ifcar.extract.decoded_views import ViewDataset
from ifcar.extract.tracks import Tracks
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.versions import FEATURE_VERSION
from ifcar.pipelines.folders import folder
from ifcar.pipelines.progress import Progress, counter


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A dataset, read."""

    dataset: Dataset
    clips: Sequence[Clip]
    digest: str
    protocols: Sequence[ProtocolTable]
    notes: Sequence[str]
    proposals: Proposals | None = None
    table: AnnotationTable | None = None

    def clip_ids(self) -> list[str]:
        """Return the ids in cache order."""
        return column(self.clips, "clip_id")

    def clip_table(self) -> ClipTable:
        """Return the clips with the segments and cameras that they name."""
        segments, cameras = (column(self.clips, name) for name in ("segment", "camera"))
        return ClipTable.of({IDS: self.clip_ids(), SEGMENTS: segments, CAMERAS: cameras})

    def num_tracks(self, clip_id: str) -> int:
        """Return how many tracks, or boxes of a file in a frame, are seen of a clip at most."""
        if self.proposals is not None:
            return int(self.tracks(clip_id).boxes.shape[1])
        return (self.table or self.dataset).num_tracks(clip_id)

    def tracks(self, clip_id: str) -> Tracks:
        """Return the boxes that are seen of a clip: those of a file where one is named, else the dataset's."""
        if self.proposals is not None:
            return self.proposals.boxes(clip_id)
        return (self.table or self.dataset).tracks(clip_id)

    def track_counts(self) -> NDArray[np.int64]:
        """Return (num_clips,) how many tracks the dataset has of each clip."""
        if self.table is not None and isinstance(self.clips, TabledClips):
            return self.table.track_counts(self.clips)
        return np.array([self.dataset.num_tracks(clip_id) for clip_id in self.clip_ids()], np.int64)

    @property
    def tracks_fps(self) -> float | None:
        """The rate that the frame numbers of the boxes which are seen count in; None: they are the source's."""
        if self.proposals is None or (self.proposals.facts is None and not self.proposals.of_source):
            return self.dataset.annotation_fps
        return None if self.proposals.facts is None else self.proposals.facts.fps

    def carried(self) -> Sequence[ArraySpec]:
        """Return the arrays that the tracks which are seen, a file's or the dataset's, carry beside boxes."""
        return self.dataset.track_arrays if self.proposals is None else self.proposals.carried

    def arrays(self) -> tuple[ArraySpec, ...]:
        """Return all arrays beside boxes and categories that views of this dataset have.

        Raises:
            InputError: an array of the tracks has other axes than T, N and what every track has of itself.
        """
        for array in self.carried():
            own = array.axes[2:]
            if array.axes[:2] != ("T", "N") or not (own == PICTURE or all(isinstance(axis, int) for axis in own)):
                raise InputError(
                    f"{self.dataset.name}: its tracks' array {array.name!r} has the axes {array.axes}; expected T, N "
                    "and then numbers, or h and w"
                )
        return (*self.carried(), *self.dataset.view_arrays)

    def views(self, policy: ViewPolicy, reads: Reads) -> ViewDataset:
        """Return what decodes the rows of a cache of these views, for a backbone that reads this of them."""
        return ViewDataset(
            self.clips,
            (self.table or self.dataset).tracks,
            self.dataset.annotation_fps,
            policy,
            reads=reads,
            proposals=None if self.proposals is None else self.proposals.boxes,
            proposals_fps=self.tracks_fps,
            carried=self.carried(),
            complete=self.dataset.complete,
        )

    def part(self, clips: slice) -> Source:
        """Return the same data with these of its clips alone."""
        places = np.arange(len(self.clips))[clips]
        protocols = [replace(own.of_clips(places), whole=protocol_digest(own)) for own in self.protocols]
        return replace(self, clips=self.clips[clips], protocols=protocols)

    def training(self) -> NDArray[np.bool_]:
        """Return (num_clips,), True where some protocol trains on the clip."""
        used = np.zeros(len(self.clips), np.bool_)
        for protocol in self.protocols:
            used |= protocol.split == Split.TRAIN
        return used


def read_source(
    config: ExtractConfig,
    progress: Progress,
    *,
    needs_pixels: bool,
    clip_ids: Sequence[str] | None = None,
    table: Path | None = None,
) -> Source:
    """Read the dataset's annotations and protocols, rendering it first where it is generated.

    Args:
        config: the options.
        progress: told about the rendering.
        needs_pixels: whether a clip without a video or frames is left out.
        clip_ids: the clips that are meant, in order; None: all, or the first `limit`.
        table: where the annotations of a large dataset are kept, and taken from as long as its files are the same;
            None: they are read from these.

    Raises:
        MissingDataError, InputError: the files are not usable, or a clip that is meant is not there.
    """
    dataset_type = DATASETS.get(config.dataset)
    dataset = dataset_type(config.data_root or folder("data") / dataset_type.default_root)
    dataset.num_instances = config.instances
    if config.subjects is not None and not (dataset.takes_subjects or config.boxes is not None):
        raise InputError(
            f"--subjects {config.subjects} would be ignored: dataset {config.dataset!r} has its own; leave it out"
        )
    dataset.subjects = config.subjects if config.boxes is None else None
    dataset.prepare(counter(progress, f"rendering {config.dataset}"))
    chosen = clip_ids is not None or config.limit is not None or config.cameras
    kept = None if table is None or chosen else _Kept.at(table, dataset, needs_pixels=needs_pixels)
    opened = None if kept is None else kept.table
    listing = dataset.listing(needs_pixels=needs_pixels) if opened is None else opened.listing
    if clip_ids is None:
        clips = _of_cameras(listing.clips, config.cameras)[: config.limit]
    else:
        clips = _named(dataset, listing, clip_ids)
    if not clips:
        first = f" The first problem: {listing.problems[0]}" if listing.problems else ""
        if config.boxes is not None and not needs_pixels:
            first += (
                f". --boxes {config.boxes} does not change that: where no pixels are read, a clip is what the boxes of "
                "its data set span; give it these as its own, or take a backbone that reads pixels"
            )
        raise InputError(f"{dataset.root}: no clip can be extracted.{first}")
    if opened is None:
        protocols, notes = dataset.protocols([clip.clip_id for clip in clips])
    else:
        protocols, notes = opened.protocols(), opened.protocol_notes
    if kept is not None and opened is None:
        kept.write(listing, protocols, notes)
    proposals = None
    if config.boxes is not None:
        protocols, unused = _over_clips(protocols)
        if not protocols:
            raise InputError(
                f"--boxes {config.boxes}: {config.dataset} has labels of its own boxes alone, which those of a file do "
                "not have; leave --boxes out"
            )
        notes = [*notes, *unused]
        shares = all(clip.frame_size == (1, 1) for clip in clips)
        proposals = read_proposals(config.boxes, clips, config.instances, shares=shares, subjects=config.subjects)
        if proposals.of_source and not needs_pixels and dataset.annotation_fps is not None:
            raise InputError(
                f"--boxes {config.boxes}: its frame numbers are those of the videos' own frames, and --backbone none "
                f"counts at {dataset.annotation_fps:g} a second, as {config.dataset} does; take a backbone that reads "
                "pixels, or Something-Else's records, which count so"
            )
    return Source(
        dataset=dataset,
        clips=clips,
        digest=listing.digest,
        protocols=protocols,
        notes=[*(() if proposals is None else proposals.notes), *listing.notes, *listing.problems, *notes],
        proposals=proposals,
        table=opened,
    )


def annotation_key(dataset: Dataset, *, needs_pixels: bool) -> Key | None:
    """Return what the table of a dataset's annotations depends on; None where no table stands for it."""
    read_by = {"ifcar": __version__, "feature_version": FEATURE_VERSION, "dataset": dataset.name}
    return key_of(dataset, {**read_by, "pixels": needs_pixels, "instances": dataset.num_instances})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """Where a dataset's annotations are kept, and the table that is there and holds them."""

    path: Path
    dataset: Dataset
    key: Key
    table: AnnotationTable | None

    @classmethod
    def at(cls, path: Path, dataset: Dataset, *, needs_pixels: bool) -> Self | None:
        """Look for the table of a dataset's files as they are; None where no table stands for it."""
        key = annotation_key(dataset, needs_pixels=needs_pixels)
        return None if key is None else cls(path=path, dataset=dataset, key=key, table=open_table(path, key))

    def write(self, listing: Listing, protocols: Sequence[ProtocolTable], notes: Sequence[str]) -> None:
        """Keep what was read, unless it is little, or files changed meanwhile; silent where that cannot be written."""
        options = {name: value for name, value in self.key.items() if name != "files"}
        if len(listing.clips) < annotation_writing.MIN_CLIPS or key_of(self.dataset, options) != self.key:
            return
        with suppress(OSError):  # the extraction goes on from what was read
            annotation_writing.write_table(self.path, self.key, listing, protocols, notes, self.dataset.tracks)


def _of_cameras(clips: Sequence[Clip], cameras: Sequence[str]) -> Sequence[Clip]:
    """Return the clips of these cameras, all where none is named. Raises InputError when one of them saw no clip."""
    if not cameras:
        return clips
    known = {clip.camera for clip in clips}
    strange = next((name for name in cameras if name not in known), None)
    if strange is not None and clips:
        named = sorted(filter(None, known))
        raise InputError(
            f"--cameras {strange}: no clip is of this camera{nearest_of(strange, named)}"
            if named
            else f"--cameras {strange} would be ignored: this dataset names no cameras; leave it out"
        )
    return [clip for clip in clips if clip.camera in cameras]


def _named(dataset: Dataset, listing: Listing, clip_ids: Sequence[str]) -> list[Clip]:
    """Return the clips of these ids in their order. Raises MissingDataError when one is not there."""
    clips = {clip.clip_id: clip for clip in listing.clips}
    gone = [clip_id for clip_id in clip_ids if clip_id not in clips]
    if gone:
        about = next((f" ({problem})" for problem in listing.problems if gone[0] in problem), "")
        raise MissingDataError(
            f"{dataset.root}: {count_of(len(gone), 'is', of=f'{len(clip_ids):,} clips')} not there now, the "
            f"first {gone[0]!r}{about}; put their files back"
        )
    return [clips[clip_id] for clip_id in clip_ids]


def _over_clips(protocols: Sequence[ProtocolTable]) -> tuple[list[ProtocolTable], list[str]]:
    """Return the protocols without labels of instances, which belong to the dataset's boxes, and notes on these."""
    kept, notes = [], []
    for protocol in protocols:
        spaces = tuple(space for space in protocol.spaces if space.over == "clip")
        notes += [
            f"protocol {protocol.name}: labels {space.name!r} are of the dataset's own boxes and left out with --boxes"
            for space in protocol.spaces
            if space.over != "clip"
        ]
        if spaces:
            kept.append(replace(protocol, spaces=spaces))
    return kept, notes
