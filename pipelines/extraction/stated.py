"""What a cache's identity states of the options that it was extracted with, under the names that a config gives them.

`preparation.provenance_of` writes an identity; whoever needs the options again reads them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ifcar.cache.arrays import GRID_FEATURES, CacheSpec
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.extraction.config import IDENTITY_NAMES

WITHOUT_EFFECT: Mapping[str, Any] = {
    "augmented_views": 0,
    "sampling": "segments",
    "sampling_fps": None,
    "background": False,
    "layout_frames": 0,
}
"""Options of views that an identity leaves out where they have these values."""
OF_BACKBONE = {
    "backbone": "name",
    "spatial_stride": "spatial_stride",
    "pooled": "pooled",
    "precision": "precision",
    "grid_pool": "grid_pool",
}


def stated_views(views: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a `ViewPolicy` that the part of an identity on views states."""
    names = (field.name for field in fields(ViewPolicy))
    stored = {name: views.get(IDENTITY_NAMES.get(name, name), WITHOUT_EFFECT.get(name)) for name in names}
    stated = {name: value for name, value in stored.items() if value is not None or name in WITHOUT_EFFECT}
    return stated | {"sampling_rates": tuple(views.get("sampling_rates", ()))}  # JSON's list is a tuple in the config


def stated_options(identity: Mapping[str, Any], spec: CacheSpec) -> dict[str, Any]:
    """Return the options of an extraction that a cache states; where its files lie, it does not know."""
    dataset, views, backbone = (identity.get(part, {}) for part in ("dataset", "views", "backbone"))
    stated: dict[str, Any] = {
        "frames": spec.num_frames,
        "instances": spec.num_instances,
        "grid": GRID_FEATURES.name in spec,
    }
    stated |= {name: dataset[key] for name, key in (("dataset", "name"), ("subjects", "subjects")) if key in dataset}
    stated |= stated_views(views) if views else {}
    stated |= {name: backbone[key] for name, key in OF_BACKBONE.items() if key in backbone}
    return stated | ({"backbone_options": backbone.get("config", {})} if backbone else {})
