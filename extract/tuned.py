"""Backbone files of our own: fine-tuned weights that say which network they belong to, in their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ifcar.errors import InputError

KEY = "ifcar.backbone"


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedFacts:
    """What a fine-tuned backbone file says of itself.

    Args:
        backbone: registered name.
        spatial_stride: 16 or 32.
        layer: the layer whose output is the feature map, under the reduction.
        reduction: channels of the 1×1×1 convolution on top, or 0.
        num_frames: T that it was trained with; others can be extracted.
        trained_on: dataset, protocol, head and the identity of the weights it began with.
    """

    backbone: str
    spatial_stride: int
    layer: str
    reduction: int
    num_frames: int
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


def check_tuned(weights: str, facts: TunedFacts, backbone: str, spatial_stride: int) -> None:
    """Raise InputError when the file belongs to another network than the one that is asked for."""
    found = (facts.backbone, facts.spatial_stride)
    if found != (backbone, spatial_stride):
        raise InputError(
            f"{weights}: fine-tuned weights of {found[0]} at spatial stride {found[1]}, but {backbone} at spatial "
            f"stride {spatial_stride} is asked for; give --backbone {found[0]} --spatial-stride {found[1]}"
        )
