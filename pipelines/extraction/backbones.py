"""Which network the options and the weights file mean, and that network, loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise

from ifcar.config_fields import fields_of
from ifcar.errors import InputError, UnavailableError, one_line
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.catalog import build_backbone, get_backbone, resolve_backbone
from ifcar.extract.backbones.spec import BackboneSpec
from ifcar.extract.tuned import check_tuned, read_tuned
from ifcar.extract.weights import find_weights, load_weights
from ifcar.pipelines.configs import from_plain
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.defaults import default_weights, settled
from ifcar.pipelines.folders import folder
from ifcar.pipelines.progress import Progress


def backbone_of(config: ExtractConfig) -> BackboneSpec:
    """Return the facts of the backbone, with those that its weights state: a fine-tuned one's reduction for example.

    Raises:
        InputError: no such backbone, stride or option, a size that it cannot take, or the weights file says that it
            belongs to another one.
    """
    config = settled(config)
    assert config.backbone is not None and config.frames is not None and config.crop is not None
    tuned = read_tuned(config.weights)
    options = dict(config.backbone_options) if tuned is None else {**tuned.config, **config.backbone_options}
    config_type = get_backbone(config.backbone).config_type
    if options and not fields(config_type):
        raise InputError(f"--set {next(iter(options))}: backbone {config.backbone!r} has no options of its own")
    spec = resolve_backbone(
        config.backbone,
        num_frames=config.frames,
        crop_size=config.crop,
        spatial_stride=config.spatial_stride,
        weights=config.weights or default_weights(config.dataset, config.backbone)[0],
        facts=None if tuned is None else tuned.facts,
        config=from_plain(config_type, options, f"backbone {config.backbone}"),
    )
    if tuned is None or config.weights is None or spec.reads == "nothing":
        return spec
    check_tuned(config.weights, tuned, spec)
    return spec.reduced(tuned.reduction)


def check_heard(config: ExtractConfig, spec: BackboneSpec) -> None:
    """Check the options as they were given, before defaults are filled in, for a backbone that reads sound.

    Raises:
        InputError: one of them is of pictures alone.
    """
    if spec.reads != "audio":
        return
    known = fields_of(ExtractConfig)
    given = [name for name in ("crop", "pooled") if getattr(config, name) != known[name].default]
    if given:
        raise InputError(
            f"{known[given[0]].flag} {getattr(config, given[0])} would be ignored: backbone {spec.name!r} reads sound; "
            "leave it out"
        )


def load_backbone(spec: BackboneSpec, weights: str | None, progress: Progress) -> tuple[Backbone | None, str]:
    """Return the network in evaluation mode, None where nothing is read, and its weights' identity.

    Args:
        spec: which backbone.
        weights: as `load_weights` takes them; None where the backbone reads nothing.
        progress: told which weights were loaded.

    Raises:
        InputError, MissingDataError: the weights cannot be loaded, or would be ignored.
    """
    if spec.reads == "nothing":
        if weights is not None:
            raise InputError(f"--weights {weights} would be ignored: backbone {spec.name!r} reads no pixels")
        return None, "none"
    assert weights is not None
    backbone = build_backbone(spec)
    record = load_weights(backbone, weights, folder("weights"))
    progress.say(f"{spec.name}: weights {record.description}")
    return backbone.eval(), record.identity


def weights_to_be_had(spec: BackboneSpec, choices: Sequence[str], progress: Progress) -> str:
    """Return the first of the choices that is here or can be fetched; the last is taken as it is.

    Args:
        spec: whose weights.
        choices: as `load_weights` takes them, the best first.
        progress: told why one of them is passed over, and for what.
    """
    for choice, other in pairwise(choices):
        try:
            find_weights(spec, choice, folder("weights"))
        except UnavailableError as error:
            progress.say(f"{spec.name}: {one_line(error)}; goes on with --weights {other}")
        else:
            return choice
    return choices[-1]
