"""What `ifcar extract` takes where an option is not given: the dataset's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ifcar.cache.addresses import place_of
from ifcar.cache.parts import part_of
from ifcar.extract.backbones.catalog import get_backbone
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.folders import file_name, folder


def settled(config: ExtractConfig) -> ExtractConfig:
    """Return the options with backbone, T, crop and sampling as the dataset has them where they are not given.

    Raises:
        InputError: no such dataset.
    """
    dataset = DATASETS.get(config.dataset)
    at_rate = config.sampling_fps is not None or bool(config.sampling_rates)
    return replace(
        config,
        backbone=config.backbone or dataset.default_backbone,
        frames=dataset.default_frames if config.frames is None else config.frames,
        crop=dataset.default_crop if config.crop is None else config.crop,
        sampling=config.sampling or ("rate" if at_rate else dataset.default_sampling),
    )


def default_weights(dataset: str, backbone: str) -> tuple[str, ...]:
    """Return the weights to take where none are given, the first that can be had: those that the backbone may have.

    Raises:
        InputError: no such dataset or backbone.
    """
    wanted = DATASETS.get(dataset).default_weights
    tags = get_backbone(backbone).published(backbone)
    return tuple(name for name in wanted if name in tags or name == "published" or name.startswith("random:"))


def annotation_table(cache: Path, config: ExtractConfig) -> Path:
    """Return where the annotations of a large dataset are kept, beside the cache; parts in one folder share them."""
    name = cache.name.removesuffix(".zarr")
    if config.part is not None:
        name = name.removesuffix(f".{'of'.join(map(str, part_of(config.part)))}")
    return cache.with_name(f"{name}.annotations")


def cache_path(config: ExtractConfig) -> Path:
    """Return where the cache is, or is to be: a path or an address."""
    if config.out is not None:
        return place_of(config.out)
    chosen = settled(config)
    part = "" if config.part is None else f".{'of'.join(map(str, part_of(config.part)))}"
    return folder("caches") / f"{file_name(f'{chosen.dataset}-{chosen.backbone}')}{part}.zarr"
