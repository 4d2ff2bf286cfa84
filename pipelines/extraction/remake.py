"""From a cache back to the options that make it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ifcar.cache.reader import CacheReader
from ifcar.errors import CacheMismatchError, InputError
from ifcar.extract.backbones.catalog import get_backbone
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.extraction.config import IDENTITY_NAMES, ExtractConfig
from ifcar.pipelines.extraction.defaults import default_weights

LISTED = "sampling_rates"  # JSON's list is a tuple in the config


def options_of(
    reader: CacheReader, *, data_root: Path | None, weights: str | None, boxes: Path | None, device: str | None
) -> ExtractConfig:
    """Return the options of the `ifcar extract` that made a cache.

    A cache knows what its files were, not where they are: those that it cannot name have to be given.

    Args:
        reader: the open cache.
        data_root: the dataset's folder; None: its default place.
        weights: as `ifcar extract` takes them; None: random and published ones as the cache names them.
        boxes: the file of boxes, of a cache that was made with one.
        device: as `ifcar extract` takes it.

    Raises:
        InputError: weights or boxes have to be named.
        CacheMismatchError: the cache's record lacks a fact.
    """
    identity = reader.identity
    if "streams" in identity:
        raise InputError(f"{reader.path}: joins several caches; make rows of each of them again")
    try:
        dataset, backbone, views = identity["dataset"]["name"], identity["backbone"], identity["views"]
        if "boxes" in identity and boxes is None:
            raise InputError(f"{reader.path}: was made with boxes of a file; name it with --boxes")
        values: dict[str, Any] = _view_options(views)
        if "layer" in backbone:  # a network that reads something
            values |= {key: backbone[key] for key in ("spatial_stride", "pooled", "precision")}
            values["backbone_options"] = backbone.get("config", {})
            values["grid_pool"] = backbone.get("grid_pool", 1)
            weights = weights or _known_weights(reader.path, dataset, backbone)
        return ExtractConfig(
            dataset=dataset,
            data_root=data_root,
            backbone=backbone["name"],
            weights=weights,
            boxes=boxes,
            device=device,
            grid="grid_features" in reader.spec.names(),
            out=reader.path,
            **values,
        )
    except KeyError as error:
        raise CacheMismatchError(f"{reader.path}: its record does not state {error}; extract anew") from error


def _view_options(views: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of views that a cache's identity states; what it leaves out has no effect."""
    known = {field.name for field in fields(ViewPolicy)} & {field.name for field in fields(ExtractConfig)}
    stored = {name: views.get(IDENTITY_NAMES.get(name, name)) for name in known}
    values = {name: value for name, value in stored.items() if value is not None}
    return {"sampling": "segments", **values, LISTED: tuple(values.get(LISTED, ()))}


def _known_weights(path: Path, dataset: str, backbone: Mapping[str, Any]) -> str:
    """Return how `--weights` names a cache's weights: of several that may be it, what the dataset takes unasked.

    Raises:
        InputError: they are a file of the user's.
    """
    made = str(backbone["weights"])
    if made.startswith("random:"):
        return made
    published = get_backbone(backbone["name"]).published(backbone["name"])
    tags = [tag for tag, entry in published.items() if entry.sha256 is None or made.startswith(entry.sha256)]
    if not tags:
        raise InputError(f"{path}: was made with the weights of SHA-256 {made[:12]}…; name that file with --weights")
    return next((tag for tag in default_weights(dataset, backbone["name"]) if tag in tags), tags[0])
