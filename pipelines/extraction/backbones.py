"""Which network the options and the weights file mean, and that network, loaded."""

from __future__ import annotations

from dataclasses import fields

from ifcar.errors import InputError
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.catalog import build_backbone, get_backbone, resolve_backbone
from ifcar.extract.backbones.spec import BackboneSpec
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.tuned import check_tuned, read_tuned
from ifcar.extract.weights import load_weights
from ifcar.pipelines.configs import from_plain
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.folders import folder
from ifcar.pipelines.progress import Progress


def backbone_of(config: ExtractConfig) -> BackboneSpec:
    """Return the facts of the backbone, with those that its weights state: a fine-tuned one's reduction for example.

    Raises:
        InputError: no such backbone, stride or option, a size that it cannot take, or the weights file says that it
            belongs to another one.
    """
    dataset = DATASETS.get(config.dataset)
    tuned = read_tuned(config.weights)
    options = dict(config.backbone_options) if tuned is None else {**tuned.config, **config.backbone_options}
    config_type = get_backbone(config.backbone).config_type
    if options and not fields(config_type):
        raise InputError(f"--set {next(iter(options))}: backbone {config.backbone!r} has no options of its own")
    spec = resolve_backbone(
        config.backbone,
        num_frames=config.frames,
        crop_size=dataset.default_crop if config.crop is None else config.crop,
        spatial_stride=config.spatial_stride,
        weights=config.weights or dataset.default_weights,
        facts=None if tuned is None else tuned.facts,
        config=from_plain(config_type, options, f"backbone {config.backbone}"),
    )
    if tuned is None or config.weights is None or spec.reads == "nothing":
        return spec
    check_tuned(config.weights, tuned, spec)
    return spec.reduced(tuned.reduction)


def load_backbone(
    spec: BackboneSpec, weights: str | None, default: str, progress: Progress
) -> tuple[Backbone | None, str]:
    """Return the network in evaluation mode, None where nothing is read, and its weights' identity.

    Args:
        spec: which backbone.
        weights: as `load_weights` takes them; None takes `default`.
        default: the same kinds of text.
        progress: told which weights were loaded.

    Raises:
        InputError, MissingDataError: the weights cannot be loaded, or would be ignored.
    """
    if spec.reads == "nothing":
        if weights is not None:
            raise InputError(f"--weights {weights} would be ignored: backbone {spec.name!r} reads no pixels")
        return None, "none"
    backbone = build_backbone(spec)
    record = load_weights(backbone, weights or default, folder("weights"))
    progress.say(f"{spec.name}: weights {record.description}")
    return backbone.eval(), record.identity
