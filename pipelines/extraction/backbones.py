"""Which network the options and the weights file mean, and that network, loaded."""

from __future__ import annotations

from ifcar.errors import InputError
from ifcar.extract.backbones.base import Backbone, BackboneSpec
from ifcar.extract.backbones.catalog import build_backbone, get_backbone
from ifcar.extract.tuned import check_tuned, read_tuned
from ifcar.extract.weights import load_weights
from ifcar.pipelines.extraction.sources import ExtractConfig
from ifcar.pipelines.folders import folder
from ifcar.pipelines.progress import Progress

SPATIAL_STRIDES = (16, 32)


def backbone_of(config: ExtractConfig) -> BackboneSpec:
    """Return the facts of the backbone, with the reduction that fine-tuned weights bring along.

    Raises:
        InputError: no such backbone or stride, or the weights file says that it belongs to another one.
    """
    if config.spatial_stride not in SPATIAL_STRIDES:
        raise InputError(f"spatial stride is {config.spatial_stride}; expected 16 or 32")
    spec = get_backbone(config.backbone).spec(config.spatial_stride)
    tuned = read_tuned(config.weights)
    if tuned is None or config.weights is None or not spec.reads_pixels:
        return spec
    check_tuned(config.weights, tuned, config.backbone, config.spatial_stride)
    return spec.reduced(tuned.reduction)


def load_backbone(
    spec: BackboneSpec, num_frames: int, weights: str | None, default: str, progress: Progress
) -> tuple[Backbone | None, str]:
    """Return the network in evaluation mode, None where no pixels are read, and its weights' identity.

    Args:
        spec: which backbone.
        num_frames: T, frames of a view.
        weights: a file, "published" or "random:SEED"; None takes `default`.
        default: the same kinds of text.
        progress: told which weights were loaded.

    Raises:
        InputError, MissingDataError: the weights cannot be loaded, or would be ignored.
    """
    if not spec.reads_pixels:
        if weights is not None:
            raise InputError(f"--weights {weights} would be ignored: backbone 'none' reads no pixels")
        return None, "none"
    backbone = build_backbone(
        spec.name, num_frames=num_frames, spatial_stride=spec.spatial_stride, reduction=spec.reduction
    )
    record = load_weights(backbone, weights or default, folder("weights"))
    progress.say(f"{spec.name}: weights {record.description}")
    return backbone.eval(), record.identity
