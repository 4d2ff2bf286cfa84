"""From a cache back to the options that make it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ifcar.cache.parts import PART
from ifcar.cache.reader import CacheReader
from ifcar.errors import CacheMismatchError, InputError
from ifcar.extract.backbones.catalog import get_backbone
from ifcar.extract.weights import tags_of
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.defaults import default_weights
from ifcar.pipelines.extraction.stated import stated_options


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
    if "boxes" in identity and boxes is None:
        raise InputError(f"{reader.path}: was made with boxes of a file; name it with --boxes")
    options, backbone = stated_options(identity, reader.spec), identity.get("backbone", {})
    reads = "layer" in backbone
    stated = {**options, "weights": weights or backbone.get("weights")}
    of_network = ("weights", "spatial_stride", "pooled", "precision") if reads else ()
    for name in ("dataset", "views", "backbone", *of_network):
        if stated.get(name) is None:
            raise CacheMismatchError(f"{reader.path}: its record does not state {name!r}; extract anew")
    if reads:
        weights = weights or _known_weights(reader.path, options["dataset"], backbone)
    kept = {field.name for field in fields(ExtractConfig)}
    return ExtractConfig(
        data_root=data_root,
        weights=weights,
        boxes=boxes,
        device=device,
        out=reader.path,
        part=reader.environment.get(PART),
        **{name: value for name, value in options.items() if name in kept},
    )


def _known_weights(path: Path, dataset: str, backbone: Mapping[str, Any]) -> str:
    """Return how `--weights` names a cache's weights: of several that may be it, what the dataset takes unasked.

    Raises:
        InputError: they are a file of the user's.
    """
    made = str(backbone["weights"])
    if made.startswith("random:"):
        return made
    tags = tags_of(made, get_backbone(backbone["name"]).published(backbone["name"]))
    if not tags:
        raise InputError(f"{path}: was made with the weights of SHA-256 {made[:12]}…; name that file with --weights")
    return next((tag for tag in default_weights(dataset, backbone["name"]) if tag in tags), tags[0])
