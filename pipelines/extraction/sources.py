"""What is extracted: the options, and the dataset that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import PICTURE, ArraySpec
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.errors import InputError
from ifcar.extract.backbones.spec import Reads
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Clip, Dataset
from ifcar.extract.datasets.proposals import Proposals, read_proposals
from ifcar.extract.decoded_views import ViewDataset
from ifcar.extract.limits import MAX_BATCH, MAX_WORKERS
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.folders import file_name, folder
from ifcar.pipelines.progress import Progress, counter


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig:
    """Options of `ifcar extract`; None takes the dataset's own default.

    Args:
        dataset: registered name.
        data_root: the dataset's folder; default: its name under the data folder.
        out: the cache; default: DATASET-BACKBONE.zarr under the caches folder.
        backbone: registered name.
        backbone_options: the backbone's own, by name.
        weights: a file or folder, "published", the tag of published ones, or "random:SEED".
        frames: T, frames sampled for a view.
        sampling: "segments", "annotated" or "rate", see `ViewPolicy`; default: rate where one of the next two is given,
            else the dataset's.
        sampling_fps: sampled frames per second.
        sampling_rates: source frames per sampled frame, which the views share.
        crop: side of the square that the network sees, in pixels.
        views: V, plain views of every clip, of which tests take all.
        augmented_views: A, further views of the clips that some protocol trains on, for training only.
        instances: N, instance slots.
        boxes: file of boxes in place of the dataset's, see `ifcar.extract.datasets.proposals`.
        spatial_stride: pixels a cell of the feature map, one of those that the backbone has; default: its first.
        pooled: RoIAlign bins, "3" or "7-max".
        grid: store the feature map itself as well.
        framing: "stretch" or "center", see `ViewPolicy`.
        flip: mirror half of the augmented views.
        seed: of the augmented views.
        batch_size: views per forward pass.
        workers: decoding processes; default: one a core, at most 8.
        precision: "fp32" or "bf16".
        compile: run the backbone through torch.compile.
        device: "cpu", "cuda", "cuda:1", …; default: cuda where there is one.
        limit: only the first so many clips.
        retry_failed: also compute the rows that failed before.
        overwrite: remove a cache that is in the way.
    """

    dataset: str
    data_root: Path | None = None
    out: Path | None = None
    backbone: str = "i3d_r50"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    frames: int = 8
    sampling: str | None = None
    sampling_fps: float | None = None
    sampling_rates: tuple[float, ...] = ()
    crop: int | None = None
    views: int = 1
    augmented_views: int = 0
    instances: int = 4
    boxes: Path | None = None
    spatial_stride: int | None = None
    pooled: str = "3"
    grid: bool = False
    framing: str = "stretch"
    flip: bool = False
    seed: int = 0
    batch_size: int = 8
    workers: int | None = None
    precision: str = "fp32"
    compile: bool = False
    device: str | None = None
    limit: int | None = None
    retry_failed: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("batch_size", self.batch_size, 1, MAX_BATCH),
            ("workers", self.workers, 0, MAX_WORKERS),
        ):
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} is {value}; expected {low} to {high}")


def cache_path(config: ExtractConfig) -> Path:
    """Return where the cache is, or is to be."""
    return config.out or folder("caches") / f"{file_name(f'{config.dataset}-{config.backbone}')}.zarr"


def parse_rates(text: str | None) -> tuple[float, ...]:
    """Return the sampling rates of a list such as "2,4,8". Raises InputError when it is none."""
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--sampling-rates is {text!r}; expected numbers with commas between, as 2,4,8") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A dataset, read."""

    dataset: Dataset
    clips: Sequence[Clip]
    digest: str
    protocols: Sequence[ProtocolTable]
    notes: Sequence[str]
    proposals: Proposals | None = None

    def clip_ids(self) -> list[str]:
        """Return the ids in cache order."""
        return [clip.clip_id for clip in self.clips]

    def carried(self) -> Sequence[ArraySpec]:
        """Return the arrays that the tracks which are seen carry beside boxes; boxes of a file carry none."""
        return () if self.proposals is not None else self.dataset.track_arrays

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
            self.dataset.tracks,
            self.dataset.annotation_fps,
            policy,
            reads=reads,
            proposals=None if self.proposals is None else self.proposals.boxes,
            carried=self.carried(),
            complete=self.dataset.complete,
        )

    def training(self) -> NDArray[np.bool_]:
        """Return (num_clips,), True where some protocol trains on the clip."""
        used = np.zeros(len(self.clips), np.bool_)
        for protocol in self.protocols:
            used |= protocol.split == Split.TRAIN
        return used


def read_source(config: ExtractConfig, progress: Progress, *, needs_pixels: bool) -> Source:
    """Read the dataset's annotations and protocols, rendering it first where it is generated."""
    dataset_type = DATASETS.get(config.dataset)
    dataset = dataset_type(config.data_root or folder("data") / dataset_type.default_root)
    dataset.prepare(counter(progress, f"rendering {config.dataset}"))
    listing = dataset.listing(needs_pixels=needs_pixels)
    if config.limit is not None and config.limit < 1:
        raise InputError(f"--limit is {config.limit}; expected at least 1")
    clips = list(listing.clips)[: config.limit]
    if not clips:
        first = f" The first problem: {listing.problems[0]}" if listing.problems else ""
        raise InputError(f"{dataset.root}: no clip can be extracted.{first}")
    clip_ids = [clip.clip_id for clip in clips]
    protocols, notes = dataset.protocols(clip_ids)
    proposals = None
    if config.boxes is not None:
        shares = all(clip.frame_size == (1, 1) for clip in clips)
        proposals = read_proposals(config.boxes, clip_ids, config.instances, shares=shares)
    return Source(
        dataset=dataset,
        clips=clips,
        digest=listing.digest,
        protocols=protocols,
        notes=[*(() if proposals is None else proposals.notes), *listing.notes, *listing.problems, *notes],
        proposals=proposals,
    )
