"""How the features behind a run were made, read back from what the run keeps about its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ifcar.config_fields import check_choice
from ifcar.errors import CacheMismatchError, InputError
from ifcar.extract.backbones.catalog import get_backbone, resolve_backbone
from ifcar.extract.backbones.spec import BackboneSpec
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.view_options import PooledMode
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.configs import from_plain
from ifcar.pipelines.extraction.stated import stated_views
from ifcar.pipelines.extraction.versions import FEATURE_VERSION, VIEWS_VERSION
from ifcar.pipelines.runs.data import RunData


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How the features behind a run were made, read back from its cache's identity.

    Args:
        backbone: the network.
        weights: identity of its weights.
        policy: how plain views are sampled; augmented ones are left out.
        pooled: RoIAlign mode, or None without pixels.
        precision: of the backbone, or None without pixels.
        boxes: SHA-256 of the file whose boxes were seen in place of the dataset's; empty without.
        have_classes: whether boxes say what is a subject, as all do but proposals of a file.
        annotation_fps: the rate that annotated frame numbers count in; None: they are the source's.
        frames_on_clock: where they count from, see `Dataset.frames_on_clock`.
        detector: identity of what found the boxes; None: they are the dataset's.
    """

    backbone: BackboneSpec
    weights: str
    policy: ViewPolicy
    pooled: PooledMode | None
    precision: Literal["fp32", "bf16"] | None
    boxes: str
    have_classes: bool
    annotation_fps: float | None
    frames_on_clock: bool
    detector: Mapping[str, Any] | None = None


def read_recipe(run: Path, data: RunData) -> Recipe:
    """Read how features were made, and check that this version makes them in the same way.

    Raises:
        InputError: the run's record lacks a fact, or names an unknown backbone or dataset.
        CacheMismatchError: the code has changed since what a feature's value is.
    """
    boxes = data.identity.get("boxes", {})
    try:
        version, backbone, views = (data.identity[key] for key in ("feature_version", "backbone", "views"))
        policy = _policy(views)
        config_type = get_backbone(backbone["name"]).config_type
        spec = resolve_backbone(
            backbone["name"],
            num_frames=policy.frames,
            crop_size=policy.crop,
            spatial_stride=backbone.get("spatial_stride"),
            facts=backbone.get("facts", {}),
            config=from_plain(config_type, backbone.get("config", {}), f"{run}: backbone {backbone['name']}"),
        ).reduced(backbone.get("reduction", 0))
        reads = spec.reads != "nothing"
        dataset = DATASETS.get(data.identity["dataset"]["name"])
        if reads:
            check_choice(backbone["pooled"], get_args(PooledMode), f"{run}: data.json: pooled")
        recipe = Recipe(
            backbone=spec,
            weights=backbone["weights"],
            policy=policy,
            pooled=backbone["pooled"] if reads else None,
            precision=backbone["precision"] if reads else None,
            boxes=boxes.get("sha256", ""),
            have_classes=not boxes or "detector" in boxes or boxes.get("have_classes", False),
            annotation_fps=dataset.annotation_fps,
            frames_on_clock=dataset.frames_on_clock,
            detector=boxes.get("detector"),
        )
        views_version = views.get("version", VIEWS_VERSION if policy.views == 1 else 1)
        made = (version, views_version, backbone["layer"] if reads else spec.layer, data.spec.channels)
    except KeyError as error:
        raise InputError(f"{run}: data.json does not state the features' {error}; train the run again") from error
    now = (FEATURE_VERSION, VIEWS_VERSION, spec.layer, spec.channels)
    if made != now:
        raise CacheMismatchError(
            f"{run}: trained on features (version, views' version, layer, channels) {made}, but this version of ifcar "
            f"makes {now}; extract and train again"
        )
    return recipe


def _policy(identity: Mapping[str, Any]) -> ViewPolicy:
    """Return the policy of plain views."""
    of_augmented = ("augmented_views", "seed", "min_scale", "flip")
    return ViewPolicy(**{name: value for name, value in stated_views(identity).items() if name not in of_augmented})
