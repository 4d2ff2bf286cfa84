"""From a user's options to the config of a fine-tuning run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ifcar.cache.arrays import GRID_FEATURES
from ifcar.errors import CacheMismatchError, InputError, nearest_of
from ifcar.extract.backbones.spec import BackboneSpec
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.views import ViewPolicy
from ifcar.pipelines.configs import from_plain, to_plain
from ifcar.pipelines.extraction.backbones import backbone_of
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.runs.config import RunConfig, run_id
from ifcar.pipelines.runs.data import RunData
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.live import I3D_PRESETS, JOINT_PRESETS, LiveConfig, LiveData, Published
from ifcar.pipelines.runs.own_weights import BACKBONE, own_weights
from ifcar.pipelines.runs.recipe import Recipe, read_recipe
from ifcar.pipelines.runs.resolve import head_arrays
from ifcar.pipelines.runs.schedule import ScheduleConfig


def i3d_config(
    dataset: str,
    *,
    protocol: str | None = None,
    labels: str | None = None,
    preset: str = "paper",
    dropout: float | None = None,
    seed: int = 0,
    **options: Any,
) -> RunConfig:
    """Return the config of the I3D baseline trained end to end: backbone, reduction, mean, dropout, linear layer.

    Args:
        dataset: registered name.
        protocol: default: compositional, or the dataset's only one; `open_setting` fills it in.
        labels: the label space; default: the protocol's first.
        preset: one of `I3D_PRESETS`.
        dropout: before the classifier; default: 0.3 (Wang and Gupta 2018, §6).
        seed: of everything random.
        options: fields of `LiveData`, `LiveConfig` and `ScheduleConfig`; None keeps the preset's.

    Raises:
        InputError: an unknown name, or a value out of range.
    """
    published = _preset(I3D_PRESETS, preset)
    given = {key: value for key, value in options.items() if value is not None}
    own_data: dict[str, Any] = {
        "dataset": dataset,
        "backbone": DATASETS.get(dataset).default_backbone,
        "frames": published.frames,
        "framing": published.framing,
    }
    if given.get("framing", published.framing) == published.framing:
        own_data["views"] = published.views.get(dataset, published.views[""])
    if not given.keys() & {"sampling", "sampling_fps", "sampling_rates"}:
        own_data["sampling_fps"] = published.sampling_fps
    live, schedule = _settings(published, {**own_data, **given})
    head: dict[str, Any] = {"input_norm": False}  # the backbone's own normalisation stands before the classifier
    if dropout is not None:
        head["dropout"] = dropout
    stride = trainable_backbone(extraction_of(live, grid=False)).spatial_stride
    live = replace(live, data=replace(live.data, spatial_stride=stride))
    _check_flip(live.data)
    config = _run_config("i3d", protocol or "", preset, live, schedule, seed)
    return replace(config, options=_options("i3d", head), labels=labels)


def joint_config(
    base: Path,
    *,
    preset: str = "paper",
    aux_weights: Mapping[str, float] | None = None,
    seed: int | None = None,
    **options: Any,
) -> RunConfig:
    """Return the config of training a run's head together with the backbone behind it.

    What the backbone sees, and what is pooled, is what the run's cache was made of.

    Args:
        base: folder of a finished run, from a cache or fine-tuned.
        preset: one of `JOINT_PRESETS`.
        aux_weights: new weights of the auxiliary losses that the run's head has; default: the run's.
        seed: default: the run's.
        options: as for `i3d_config`; of `LiveData` those that a cache's rows do not depend on, and `frames` and
            `instances`, which must be the head's.

    Raises:
        MissingDataError, InputError, CacheMismatchError: the run cannot be trained on.
    """
    run = open_run(base)
    config, data = run.config, run.data()
    if not isinstance(config, RunConfig):
        raise InputError(f"{base}: an ensemble has no head of its own; name one of its members")
    published = _preset(JOINT_PRESETS, preset)
    recipe = _recipe_of(base, config, data, options.get("boxes"))
    given = {key: value for key, value in options.items() if value is not None}
    for name, symbol in (("frames", "T"), ("instances", "N")):
        expected = data.spec.num_frames if name == "frames" else data.spec.num_instances
        if given.setdefault(name, expected) != expected:
            raise InputError(f"{base}: its head was trained on {symbol} = {expected}, not {given[name]}; leave it out")
    own = {
        "dataset": data.identity["dataset"]["name"],
        "subjects": data.identity["dataset"].get("subjects"),
        "backbone": recipe.backbone.name,
        "backbone_options": to_plain(recipe.backbone.config),
        "spatial_stride": recipe.backbone.spatial_stride,
        "crop": recipe.policy.crop,
        "views": recipe.policy.views,
        "framing": recipe.policy.framing,
        "background": recipe.policy.background,
        **_sampling_of(recipe.policy, data.identity["dataset"]["name"]),
        "pooled": recipe.pooled,
        "reduction": recipe.backbone.reduction,
        "base": base,
        "base_id": run_id(config),
        "weights_identity": recipe.weights,
        "boxes_identity": recipe.boxes,
    }
    clashing = [name for name in own if name in given and given[name] != own[name]]
    if clashing:
        raise InputError(f"{base}: its head was trained with {clashing[0]} = {own[clashing[0]]}; leave that option out")
    if "weights" not in given:
        found = own_weights(base, recipe, [base])
        if found == recipe.weights or Path(found).name == BACKBONE:  # published ones stay the default, on any machine
            given["weights"] = found
    live, schedule = _settings(published, {**given, **own})
    _check_flip(live.data)
    own_seed = config.seed if seed is None else seed
    fresh = _run_config(config.head, data.protocol, config.preset, live, schedule, own_seed)
    weights = {**config.aux_weights, **(aux_weights or {})}
    if weights.keys() != config.aux_weights.keys() or not all(weights.values()):
        trained = ", ".join(config.aux_weights) or "none"
        raise InputError(
            f"{base}: its head was trained with the auxiliary losses: {trained}; --aux gives each of these a new "
            "weight above 0, and turns none on or off"
        )
    return replace(fresh, options=config.options, aux_weights=weights, labels=config.labels)


def _sampling_of(policy: ViewPolicy, dataset: str) -> dict[str, Any]:
    """Return how frames are sampled, as options that leave out what they imply and what the dataset does anyway."""
    at_rate = policy.sampling_fps is not None or bool(policy.sampling_rates)
    implied = "rate" if at_rate else DATASETS.get(dataset).default_sampling
    return {
        "sampling": None if policy.sampling == implied else policy.sampling,
        "sampling_fps": policy.sampling_fps,
        "sampling_rates": policy.sampling_rates,
    }


def _recipe_of(base: Path, config: RunConfig, data: RunData, boxes: Path | None) -> Recipe:
    """Return what a run's cache was made of, of runs whose head has a backbone that can be trained with it."""
    if "streams" in data.identity:
        raise InputError(f"{base}: its head was trained on several caches, whose backbones are not trained together")
    if not data.spec.channels:
        raise InputError(f"{base}: its head was trained on boxes alone (backbone none); there is no backbone to train")
    recipe = read_recipe(base, data)
    if recipe.detector is not None:
        raise InputError(
            f"{base}: trained on boxes of a detector (`ifcar extract --boxes`), which training the backbone does not "
            "read; put the file there as the dataset's annotations.json (something-else), extract and train again"
        )
    if recipe.boxes and boxes is None:
        raise InputError(
            f"{base}: its head was trained on boxes of a file ({recipe.boxes[:12]}…); name the file with --boxes"
        )
    if GRID_FEATURES.name in head_arrays(config) and "grid_pool" in data.identity["backbone"]:
        raise InputError(
            f"{base}: its head was trained on a map made smaller by --grid-pool, and the backbone is trained on whole "
            "ones: extract without it, and train the head on that"
        )
    return recipe


def _preset(presets: Mapping[str, Published], name: str) -> Published:
    if name not in presets:
        raise InputError(f"preset is {name!r}{nearest_of(name, presets)}")
    return presets[name]


def _settings(published: Published, given: dict[str, Any]) -> tuple[LiveConfig, ScheduleConfig]:
    """Sort options into live config and schedule, over a preset's numbers."""
    if "num_steps" in given and "epochs" in given:
        raise InputError("--steps and --epochs exclude each other; give one")
    counted = {"num_steps", "epochs"} & set(given)
    own: dict[str, Any] = {
        "lr": published.lr,
        "batch_size": published.batch_size,
        "milestones": list(published.milestones),
        "cropping": published.cropping,
        "pool": published.pool,
        **({} if counted else {"epochs": published.epochs, "num_steps": published.num_steps}),
        **given,
    }
    parts: dict[type[Any], dict[str, Any]] = {}
    for kind in (LiveData, LiveConfig, ScheduleConfig):
        names = {field.name for field in fields(kind)}
        parts[kind] = {key: to_plain(own.pop(key)) for key in list(own) if key in names}
    assert not own, own
    live = from_plain(LiveConfig, {**parts[LiveConfig], "data": parts[LiveData]}, "options")
    schedule = {"held_out": 0.0, **parts[ScheduleConfig], "kind": "paper", "refit": False}
    return live, from_plain(ScheduleConfig, schedule, "options")


def _check_flip(data: LiveData) -> None:
    if data.flip and not DATASETS.get(data.dataset).mirror_safe:
        raise InputError(f"--flip: dataset {data.dataset!r} has classes that tell left from right; leave it out")


def _options(head: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    from ifcar.heads.catalog import HEADS

    plain: dict[str, Any] = to_plain(from_plain(HEADS.get(head).config_type, settings, f"head {head}"))
    return plain


def _run_config(
    head: str, protocol: str, preset: str, live: LiveConfig, schedule: ScheduleConfig, seed: int
) -> RunConfig:
    return RunConfig(head=head, cache=Path(), protocol=protocol, preset=preset, live=live, schedule=schedule, seed=seed)


def extraction_of(live: LiveConfig, *, grid: bool) -> ExtractConfig:
    """Return the options with which `ifcar extract` sees what the backbone is trained on; `grid` stores whole maps."""
    shared = {field.name for field in fields(ExtractConfig)} & {field.name for field in fields(LiveData)}
    training_only = {"flip"}
    return ExtractConfig(**{name: getattr(live.data, name) for name in shared - training_only}, grid=grid)


def trainable_backbone(extraction: ExtractConfig) -> BackboneSpec:
    """Return the facts of the backbone that these options name. Raises InputError when there is nothing to train."""
    spec = backbone_of(extraction)
    if spec.reads == "nothing":
        raise InputError(
            f"backbone {spec.name!r} reads no pixels, so there is nothing to fine-tune; choose another --backbone"
        )
    return spec


def check_live(config: RunConfig) -> LiveConfig:
    """Return the live part of a config. Raises InputError when it has none, or settings that would be ignored."""
    if config.live is None:
        raise InputError("this config is of a run from a cache; train it with `ifcar fit-head --config`")
    if config.schedule.kind != "paper" or config.schedule.refit or config.sources:
        raise InputError(
            "a fine-tuning takes schedule.kind paper, refit false and neither fine_tune nor distil_from; write the "
            "config so"
        )
    if (config.views, config.augmented_views) != (None, None):
        raise InputError("a fine-tuning makes its own views; leave views and augmented_views out of its config")
    return config.live


def check_base(config: RunConfig, live: LiveConfig) -> None:
    """Raise CacheMismatchError when the base run has been trained anew since the config was made."""
    if live.base is not None:
        base = open_run(live.base).config
        if not isinstance(base, RunConfig) or run_id(base) != live.base_id:
            raise CacheMismatchError(f"{live.base}: not the run that the config names; it has been trained anew since")
