"""`vggish`: the sound of every frame by itself, as a log-mel patch of 0.96 s around it.

Source: Hershey et al. 2017, "CNN Architectures for Large-Scale Audio Classification"; keys and weights: torchvggish
v0.1, of which the layers behind `features` are left out. Patch: `ifcar.extract.log_mel`. Map (512, T, 6, 4), rows over
the patch's time and columns over its bands.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from ifcar.errors import InputError
from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.spec import FRAMES, BackboneRequest, BackboneSpec, Normalisation, PublishedWeights
from ifcar.extract.log_mel import NUM_BANDS, NUM_FRAMES

NAME = "vggish"
_POOL = 0
_LAYERS: Final = (64, _POOL, 128, _POOL, 256, 256, _POOL, 512, 512, _POOL)  # channels of convolutions of 3 × 3
_STRIDE = 2 ** _LAYERS.count(_POOL)
_CLASSIFIER = "embeddings."
_PUBLISHED: Final = {
    "audioset": PublishedWeights(
        address="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        sha256="10086976",
        license="Apache-2.0 (Google's VGGish, converted by torchvggish)",
        normalisation=Normalisation(),
    )
}


class Vggish(Backbone):
    """VGGish up to its last pooling; keys are torchvggish's."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        layers: list[nn.Module] = []
        width = 1
        for channels in _LAYERS:
            if channels == _POOL:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(inplace=True)]
                width = channels
        self.features = nn.Sequential(*layers)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return log-mel patches (B, T, 96, 64) float32 as they are.

        Raises:
            InputError: they are something else.
        """
        if inputs.dtype != torch.float32 or inputs.ndim != 4 or inputs.shape[2:] != (NUM_FRAMES, NUM_BANDS):
            raise InputError(
                f"sound is {inputs.dtype} {tuple(inputs.shape)}; expected torch.float32 (B, T, {NUM_FRAMES}, "
                f"{NUM_BANDS}) log-mel"
            )
        return inputs

    def forward(self, video: Tensor) -> Maps:
        """Return the map (B, 512, T, 6, 4) of patches (B, T, 96, 64)."""
        maps = self.through(self.features, video.flatten(0, 1)[:, None])
        return {FRAMES: maps.unflatten(0, video.shape[:2]).transpose(1, 2)}

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave the layers behind the map out."""
        return {key: value for key, value in state.items() if not key.startswith(_CLASSIFIER)}


def _resolve(request: BackboneRequest) -> BackboneSpec:
    return request.spec_of_frames(
        "audio",
        layer_channels=max(_LAYERS),
        maps={FRAMES: (NUM_FRAMES // _STRIDE, NUM_BANDS // _STRIDE)},
        spatial_stride=request.stride_among((_STRIDE,)),
        strides=(_STRIDE,),
        layer=f"features.{2 * len(_LAYERS) - _LAYERS.count(_POOL) - 1}",
    )


BACKBONES.register(NAME, BackboneFamily(resolve=_resolve, build=Vggish, published=lambda name: _PUBLISHED), __name__)
