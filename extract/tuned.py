"""Backbone files of our own: fine-tuned weights that say which network they belong to, in their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ifcar.errors import InputError
from ifcar.extract.backbones.spec import BackboneSpec

KEY = "ifcar.backbone"


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedFacts:
    """What a fine-tuned backbone file says of itself.

    Args:
        backbone: registered name.
        spatial_stride: pixels per cell of the feature map.
        layer: the layer whose output is the feature map, under the reduction.
        reduction: channels of the 1×1×1 convolution on top, or 0.
        num_frames: T that it was trained with; others can be extracted.
        facts: what the weights that it began with said of their network, see `BackboneFamily.facts`.
        config: the backbone's own options.
        trained_on: dataset, protocol, head and the identity of the weights it began with.
    """

    backbone: str
    spatial_stride: int
    layer: str
    reduction: int
    num_frames: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    trained_on: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """Return the facts as a safetensors file carries them."""
        return {KEY: json.dumps(asdict(self), sort_keys=True)}


def read_tuned(weights: str | None) -> TunedFacts | None:
    """Return what a weights file says of itself; None for no such file, or for one that says nothing.

    Args:
        weights: as `load_weights` takes them.

    Raises:
        InputError: the facts are damaged.
    """
    path = None if weights is None else Path(weights).expanduser()
    if path is None or path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
        return None if text is None else TunedFacts(**json.loads(text))
    except (SafetensorError, OSError):
        return None  # reading the weights themselves says what is wrong
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its description of the backbone is damaged ({error}); fine-tune again") from error


def check_tuned(weights: str, tuned: TunedFacts, spec: BackboneSpec) -> None:
    """Raise InputError when the file belongs to another network than the one that is asked for."""
    found = (tuned.backbone, tuned.spatial_stride)
    if found != (spec.name, spec.spatial_stride):
        raise InputError(
            f"{weights}: fine-tuned weights of {found[0]} at spatial stride {found[1]}, but {spec.name} at spatial "
            f"stride {spec.spatial_stride} is asked for; give --backbone {found[0]} --spatial-stride {found[1]}"
        )
