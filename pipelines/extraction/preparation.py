"""What an extraction needs before its first block: options → dataset, views, network, dimensions, provenance.

The driver and every actor of a cluster call the same `prepare`, so that whatever they see differently shows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import MASKS, ArraySpec, CacheSpec
from ifcar.cache.parts import PART, WHOLE, part_of
from ifcar.cache.schema import ROWS_PER_SHARD, Provenance, fingerprint
from ifcar.errors import InputError
from ifcar.extract.annotation_table import column
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.spec import INSTANCES, BackboneSpec, Reads
from ifcar.extract.decoded_views import ViewDataset
from ifcar.extract.extractor import EngineOptions, FeatureExtractor
from ifcar.extract.roi import pooled_size
from ifcar.extract.view_content import BACKGROUND, has_background
from ifcar.extract.views import ViewPolicy
from ifcar.extract.weights import check_there, is_file_name
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.extraction.backbones import backbone_of, load_backbone, weights_to_be_had
from ifcar.pipelines.extraction.config import IDENTITY_NAMES, ExtractConfig
from ifcar.pipelines.extraction.defaults import default_weights, settled
from ifcar.pipelines.extraction.environment import BEGUN_ON, device_name, software
from ifcar.pipelines.extraction.sources import Source, read_source
from ifcar.pipelines.extraction.versions import FEATURE_VERSION, VIEWS_VERSION
from ifcar.pipelines.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """An extraction, ready to begin.

    Args:
        config: the options.
        source: the dataset.
        policy: how views are sampled.
        spec: the cache's arrays.
        reads: what the network reads of a view.
        backbone: the network on the CPU, None where nothing is read.
        provenance: where the numbers come from.
    """

    config: ExtractConfig
    source: Source
    policy: ViewPolicy
    spec: CacheSpec
    reads: Reads
    backbone: Backbone | None
    provenance: Provenance

    def identity(self) -> dict[str, Any]:
        """Return what a cache is opened with, apart from its protocols."""
        return {
            "spec": self.spec,
            "provenance": self.provenance,
            "clip_ids": self.source.clip_ids(),
            "num_views": self.policy.views,
            "num_augmented_views": self.policy.augmented_views,
        }

    def versions(self) -> dict[str, str]:
        """Return what has to be the same wherever rows of the cache are computed: all but the device."""
        return {name: str(v) for name, v in self.provenance.environment.items() if name != BEGUN_ON}

    def wanted(self) -> NDArray[np.bool_]:
        """Return (R,), True for plain views, and for augmented ones of clips that some protocol trains on."""
        is_plain = np.arange(self.policy.rows_per_clip) < self.policy.views
        return np.logical_or(is_plain, self.source.training()[:, None]).ravel()

    def views(self) -> ViewDataset:
        """Return what decodes rows."""
        return self.source.views(self.policy, self.reads)

    def extractor(self, options: EngineOptions) -> FeatureExtractor:
        """Return what turns decoded views into features, on the options' device."""
        return FeatureExtractor(self.backbone, self.spec, self.config.pooled, options)


def prepare(
    config: ExtractConfig, progress: Progress, clip_ids: Sequence[str] | None = None, table: Path | None = None
) -> Preparation:
    """Read the dataset, load the network and name where the numbers come from.

    Args:
        config: the options.
        progress: told about the work.
        clip_ids: the clips that are meant, in order, as those of a cache; None: all of the dataset, as the options say.
        table: where the annotations of a large dataset are kept, see `read_source`.

    Raises:
        InputError, MissingDataError: options or files are not usable.
    """
    config = settled(config)
    if config.part is not None:
        part_of(config.part)  # before a data set is read
        if config.limit is not None or config.cameras:
            raise InputError(f"--part {config.part}: a part is one of all clips; leave --limit and --cameras out")
    backbone_spec = backbone_of(config)
    policy = view_policy(config)  # before a data set is read, or made
    needs_pixels = backbone_spec.reads != "nothing"
    if needs_pixels and config.weights is not None and is_file_name(config.weights, backbone_spec.name):
        check_there(Path(config.weights).expanduser(), tuple(backbone_spec.published))
    source = read_source(config, progress, needs_pixels=needs_pixels, clip_ids=clip_ids, table=table)
    if policy.augmented_views and not source.training().any():
        raise InputError(
            f"--augmented-views {policy.augmented_views} would be ignored: no protocol of {source.dataset.root} "
            f"trains on any of the {len(source.clips)} clips; leave it out"
        )
    spec = cache_spec(config, policy, backbone_spec, source.arrays())  # what cannot be is said before weights are read
    if config.weights is None and backbone_spec.reads != "nothing":
        choices = default_weights(config.dataset, backbone_spec.name)
        config = replace(config, weights=weights_to_be_had(backbone_spec, choices, progress))
    backbone, weights = load_backbone(backbone_spec, config.weights, progress)
    whole = Preparation(
        config=config,
        source=source,
        policy=policy,
        spec=spec,
        reads=backbone_spec.reads,
        backbone=backbone,
        provenance=provenance_of(config, source, policy, backbone_spec, weights),
    )
    return whole if config.part is None else _part_of(whole, config.part)


def _part_of(whole: Preparation, part: str) -> Preparation:
    """Return one of N parts of an extraction: whole blocks of the whole cache, as many as of any other part.

    Raises:
        InputError: it is no part, or there are fewer blocks than parts.
    """
    (number, of), rows = part_of(part), whole.policy.rows_per_clip
    clips = ROWS_PER_SHARD // math.gcd(ROWS_PER_SHARD, rows)  # the fewest that fill blocks
    count = -(-len(whole.source.clips) // clips)
    if count < of:
        raise InputError(
            f"--part {part}: {len(whole.source.clips)} clips of {rows} rows each are divided after every {clips} "
            f"clips; expected at most {count} parts"
        )
    start, stop = (clips * (count * k // of) for k in (number - 1, number))
    identity = whole.identity()
    counts = identity["num_views"], identity["num_augmented_views"]
    facts = {PART: part, WHOLE: fingerprint(whole.spec, whole.provenance.identity, identity["clip_ids"], *counts)}
    provenance = replace(whole.provenance, environment={**whole.provenance.environment, **facts})
    return replace(whole, source=whole.source.part(slice(start, stop)), provenance=provenance)


def view_policy(config: ExtractConfig) -> ViewPolicy:
    """Return how the views of a cache are sampled."""
    chosen = settled(config)
    stated = [field.name for field in fields(ViewPolicy) if hasattr(chosen, field.name)]
    return ViewPolicy(**{name: getattr(chosen, name) for name in stated})


def cache_spec(
    config: ExtractConfig,
    policy: ViewPolicy,
    backbone: BackboneSpec,
    more: Sequence[ArraySpec],
) -> CacheSpec:
    """Return the cache's arrays: the backbone's, the standard ones of a view, and those that the dataset gives.

    Raises:
        InputError: instances cannot be pooled so, for the dataset lacks what it needs, or the map cannot.
    """
    mode = config.pooled
    if mode == "mask" and INSTANCES in backbone.maps and MASKS.name not in {array.name for array in more}:
        raise InputError(
            f"--pooled mask: dataset {config.dataset!r} gives no masks here; expected 3 or 7-max, which pool boxes, or "
            "--boxes of a detector that gives masks"
        )
    if policy.background and not (MASKS in more and any(map(has_background, more))):
        raise InputError(
            f"--background: dataset {config.dataset!r} gives no masks here, or no object classes of which the first is "
            f"{BACKGROUND!r}; leave it out, or name --boxes of a detector that gives both"
        )
    size, pool = backbone.grid_size if config.grid else None, config.grid_pool
    if size is not None and any(side % pool for side in size):
        height, width = size
        raise InputError(
            f"--grid-pool {pool}: does not divide the {height} × {width} cells of the map of {backbone.name!r} here; "
            "expected a divisor of both"
        )
    return CacheSpec.standard(
        num_frames=policy.frames,
        num_steps=backbone.num_steps,
        num_instances=policy.instances,
        channels=backbone.channels,
        pooled_size=pooled_size(mode) if INSTANCES in backbone.maps else 0,
        grid_size=None if size is None else (size[0] // pool, size[1] // pool),
        more=more,
        layout_frames=policy.layout_frames,
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
        "views": _views(policy),
        "backbone": {"name": backbone.name, "weights": weights},
    }
    identity["dataset"] |= _spans(source)
    if config.subjects is not None:
        identity["dataset"]["subjects"] = config.subjects
    if source.dataset.frames_on_clock:  # a cache from when such numbers met rates near their own roughly is another
        identity["dataset"]["annotation_clock"] = "exact"
    if source.proposals is not None:
        identity["boxes"] = {"sha256": source.proposals.digest}
        if source.proposals.facts is not None:
            identity["boxes"]["detector"] = dict(source.proposals.facts.detector)
        elif source.proposals.have_classes:
            identity["boxes"]["have_classes"] = True
    if backbone.reads != "nothing":
        identity["views"]["crop_size"] = policy.crop
        identity["backbone"] |= {
            "layer": backbone.layer,
            "spatial_stride": backbone.spatial_stride,
            "pooled": config.pooled,
            "precision": config.precision,
        }
        own = {"reduction": backbone.reduction, "facts": dict(backbone.facts), "config": to_plain(backbone.config)}
        own["grid_pool"] = config.grid_pool if config.grid and config.grid_pool > 1 else None
        identity["backbone"] |= {key: value for key, value in own.items() if value}
    return Provenance(identity=identity, environment={**software(), BEGUN_ON: device_name(config.device)})


def _spans(source: Source) -> dict[str, str]:
    """Return a digest of what the clips say about their spans and rates, when any does."""
    stated = [column(source.clips, name) for name in ("span_sec", "source_fps")]
    if all(value is None for values in stated for value in values):
        return {}
    spans = list(zip(*stated, strict=True))
    return {"spans": hashlib.sha256(repr(spans).encode()).hexdigest()}


def _views(policy: ViewPolicy) -> dict[str, Any]:
    """Return how views are sampled; what has no effect is left out, but for what one-view caches always stated."""
    views: dict[str, Any] = {
        IDENTITY_NAMES.get(name, name): getattr(policy, name) for name in ("frames", "views", "instances", "framing")
    }
    views |= dict.fromkeys(("seed", "min_scale", "flip", "training_clips"))
    if policy.augmented_views:
        views |= {
            IDENTITY_NAMES.get(name, name): getattr(policy, name)
            for name in ("augmented_views", "seed", "min_scale", "flip")
        }
    if policy.rows_per_clip > 1:
        views["version"] = VIEWS_VERSION
    chosen = {
        "sampling": None if policy.sampling == "segments" else policy.sampling,
        "sampling_fps": policy.sampling_fps,
        "background": policy.background or None,
        "sampling_rates": list(policy.sampling_rates) or None,
        "layout_frames": policy.layout_frames or None,
    }
    return views | {key: value for key, value in chosen.items() if value is not None}
