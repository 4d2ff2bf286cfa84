"""`ifcar extract`: videos, boxes and labels to a cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ifcar.cache.durable import write_atomic
from ifcar.cache.reader import open_cache
from ifcar.cache.schema import CacheSpec, Provenance
from ifcar.cache.writer import CacheWriter
from ifcar.errors import InputError
from ifcar.extract.backbones.base import BackboneSpec
from ifcar.extract.datasets.contract import Dataset
from ifcar.extract.engine import (
    EngineOptions,
    FeatureExtractor,
    RowArrays,
    ViewDataset,
    choose_device,
    extract_rows,
)
from ifcar.extract.roi import parse_pooled_mode, pooled_size
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.backbones import backbone_of, load_backbone
from ifcar.pipelines.folders import folder
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.sources import ExtractConfig, Source, read_source

FEATURE_VERSION = 2  # raised whenever the code changes what a feature's value is
VERSIONED_PACKAGES = ("ifcar", "torch", "torchvision", "pytorchvideo", "numpy", "av", "zarr")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractResult:
    """What an extraction left behind.

    Args:
        cache: the cache's path.
        num_clips: clips in the cache.
        num_rows: rows in the cache.
        num_computed: rows computed now.
        num_failed: rows whose status is failed.
        failures_file: the list of failed rows, when there are any.
        notes: clips left out and files not found, one line each.
    """

    cache: Path
    num_clips: int
    num_rows: int
    num_computed: int
    num_failed: int
    failures_file: Path | None
    notes: Sequence[str] = field(default_factory=tuple)


def extract(config: ExtractConfig, progress: Progress) -> ExtractResult:
    """Run stage one: decode, run the backbone, pool instances, write and commit block after block.

    Interrupted at any point and run again with the same options, it goes on where it was.

    Raises:
        InputError, MissingDataError: options or files are not usable.
        CacheMismatchError: the cache in the way was made with other options.
    """
    backbone_spec = backbone_of(config)
    source = read_source(config, progress, needs_pixels=backbone_spec.reads_pixels)
    policy = view_policy(config, source.dataset)
    spec = cache_spec(config, policy, backbone_spec)
    backbone, weights_identity = load_backbone(
        backbone_spec, policy.num_frames, config.weights, source.dataset.default_weights, progress
    )
    provenance = provenance_of(config, source, policy, backbone_spec, weights_identity)
    path = config.out or folder("caches") / f"{config.dataset}-{config.backbone}.zarr"
    writer = _open_writer(path, config, spec, provenance, source, policy)
    options = _engine_options(config)
    views = ViewDataset(
        source.clips,
        source.dataset.tracks,
        source.dataset.annotation_fps,
        source.training(),
        policy,
        reads_pixels=backbone_spec.reads_pixels,
    )
    extractor = FeatureExtractor(backbone, spec, parse_pooled_mode(config.pooled), options)
    retry = writer.failed_rows() if config.retry_failed else {}
    pending = writer.pending_blocks()
    num_rows = sum(len(writer.rows_of(block)) for block in pending) + len(retry)
    if num_rows:
        _run(writer, views, extractor, options, pending, sorted(retry), num_rows, progress)
    return _result(path, writer, source, num_rows)


def view_policy(config: ExtractConfig, dataset: Dataset) -> ViewPolicy:
    """Return how the views of a cache are sampled."""
    return ViewPolicy(
        num_frames=config.frames,
        crop_size=dataset.default_crop if config.crop is None else config.crop,
        num_instances=config.instances,
        num_views=config.views,
        framing=config.framing,  # type: ignore[arg-type]  # checked by ViewPolicy
        flip=config.flip,
        seed=config.seed,
    )


def cache_spec(config: ExtractConfig, policy: ViewPolicy, backbone: BackboneSpec) -> CacheSpec:
    """Return the cache's dimensions."""
    num_steps = backbone.num_steps(policy.num_frames)
    if not backbone.reads_pixels:
        return CacheSpec(num_frames=policy.num_frames, num_steps=num_steps, num_instances=policy.num_instances)
    return CacheSpec(
        num_frames=policy.num_frames,
        num_steps=num_steps,
        num_instances=policy.num_instances,
        channels=backbone.channels,
        pooled_size=pooled_size(parse_pooled_mode(config.pooled)),
        grid_size=backbone.grid_size(policy.crop_size) if config.grid else None,
    )


def provenance_of(
    config: ExtractConfig, source: Source, policy: ViewPolicy, backbone: BackboneSpec, weights: str
) -> Provenance:
    """Return where the numbers of a cache come from.

    Args:
        config: the options.
        source: the dataset.
        policy: how views are sampled.
        backbone: the network.
        weights: identity of its weights.
    """
    identity: dict[str, Any] = {
        "feature_version": FEATURE_VERSION,
        "dataset": {"name": config.dataset, "annotations": source.digest},
        "views": {
            "num_frames": policy.num_frames,
            "num_views": policy.num_views,
            "num_instances": policy.num_instances,
            "framing": policy.framing,
            "seed": policy.seed if policy.num_views > 1 else None,
            "min_scale": policy.min_scale if policy.num_views > 1 else None,
            "flip": policy.flip if policy.num_views > 1 else None,
            "training_clips": _digest_of_training(source) if policy.num_views > 1 else None,
        },
        "backbone": {"name": backbone.name, "weights": weights},
    }
    if backbone.reads_pixels:
        identity["views"]["crop_size"] = policy.crop_size
        identity["backbone"] |= {
            "layer": backbone.layer,
            "spatial_stride": backbone.spatial_stride,
            "pooled": config.pooled,
            "precision": config.precision,
        }
        if backbone.reduction:
            identity["backbone"]["reduction"] = backbone.reduction
    environment: dict[str, Any] = {name: version(name) for name in VERSIONED_PACKAGES}
    environment["python"] = platform.python_version()
    return Provenance(identity=identity, environment=environment)


def _digest_of_training(source: Source) -> str:
    """Return which clips may be augmented, as a short hexadecimal text."""
    return hashlib.sha256(np.packbits(source.training()).tobytes()).hexdigest()[:16]


def _open_writer(
    path: Path,
    config: ExtractConfig,
    spec: CacheSpec,
    provenance: Provenance,
    source: Source,
    policy: ViewPolicy,
) -> CacheWriter:
    if config.overwrite and path.exists():
        if not (path / "zarr.json").is_file():
            raise InputError(f"{path}: not a cache, so --overwrite will not remove it; name another --out")
        shutil.rmtree(path)
    arguments: dict[str, Any] = {
        "spec": spec,
        "provenance": provenance,
        "clip_ids": source.clip_ids(),
        "num_views": policy.num_views,
        "protocols": source.protocols,
    }
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return CacheWriter.create(path, **arguments)
    return CacheWriter.resume(path, **arguments)


def _engine_options(config: ExtractConfig) -> EngineOptions:
    cores = os.cpu_count() or 1
    workers = min(8, max(1, cores - 1)) if config.workers is None else config.workers
    return EngineOptions(
        batch_size=config.batch_size,
        num_workers=workers,
        device=choose_device(config.device),
        precision=config.precision,
        compile=config.compile,
    )


def _run(
    writer: CacheWriter,
    views: ViewDataset,
    extractor: FeatureExtractor,
    options: EngineOptions,
    pending: Sequence[int],
    retry: Sequence[int],
    num_rows: int,
    progress: Progress,
) -> None:
    progress.start(f"extracting {len(views.clips)} clips", num_rows)
    failed = 0

    def on_rows(count: int, bad: int) -> None:
        nonlocal failed
        failed += bad
        progress.advance(count, note=f"{failed} failed" if failed else "")

    plan = [(block, list(writer.rows_of(block)), None) for block in pending]
    extract_rows(writer, views, extractor, options, plan, on_rows)
    for block, rows, arrays in _reopened(writer, retry):
        extract_rows(writer, views, extractor, options, [(block, rows, arrays)], on_rows)
    progress.finish()


def _reopened(writer: CacheWriter, retry: Sequence[int]) -> Iterator[tuple[int, list[int], RowArrays]]:
    """Yield every block that has rows to try again, opened only when its turn comes."""
    for block in range(writer.num_blocks):
        rows = [row for row in retry if row in writer.rows_of(block)]
        if rows:
            yield block, rows, writer.reopen_block(block)


def _result(path: Path, writer: CacheWriter, source: Source, num_computed: int) -> ExtractResult:
    reader = open_cache(path)
    failures = reader.failures()
    failures_file = path.with_suffix(".failures.jsonl")
    if failures:
        lines = [
            json.dumps({"row": f.row, "clip": f.clip_id, "view": f.view, "reason": f.reason}, ensure_ascii=False)
            for f in failures
        ]
        write_atomic(failures_file, ("\n".join(lines) + "\n").encode())
    else:
        failures_file.unlink(missing_ok=True)
    num_rows = reader.num_rows
    reader.close()
    return ExtractResult(
        cache=path,
        num_clips=len(source.clips),
        num_rows=num_rows,
        num_computed=num_computed,
        num_failed=len(failures),
        failures_file=failures_file if failures else None,
        notes=source.notes,
    )
