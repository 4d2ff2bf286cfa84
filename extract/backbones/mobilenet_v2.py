"""`mobilenet_v2`: torchvision's image network of 3.5 million parameters, trained on ImageNet, on every frame by itself.

Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks"; architecture and weights:
torchvision. Shapes for T × S × S: features.18 (1280, T, S/32, S/32) at spatial stride 32, features.13
(96, T, S/16, S/16) at spatial stride 16. The whole network is kept at either stride, so every key has its place.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ifcar.extract.backbones.base import BACKBONES, BackboneFamily
from ifcar.extract.backbones.per_frame import PerFrame, frames_of, torchvision_weights
from ifcar.extract.backbones.random_init import ENDS_BRANCH
from ifcar.extract.backbones.spec import BackboneRequest, BackboneSpec
from ifcar.extract.backbones.undrawn import undrawn

NAME = "mobilenet_v2"
_LAYERS = {32: (18, 1280), 16: (13, 96)}  # spatial stride → layer of `features`, its channels


class MobileNetV2(PerFrame):
    """MobileNetV2 up to a layer of `features`; keys are torchvision's."""

    features: nn.Sequential

    def __init__(self, spec: BackboneSpec) -> None:
        from torchvision.models import mobilenet_v2

        super().__init__(spec)
        with undrawn():
            self.adopt(mobilenet_v2(weights=None))
        for block in self.features:
            if getattr(block, "use_res_connect", False):
                *_, norm = block.get_submodule("conv").children()
                setattr(norm, ENDS_BRANCH, True)

    def stages(self) -> Mapping[str, nn.Module]:
        """Return features.0 to the map's layer."""
        last, _ = _LAYERS[self.spec.spatial_stride]
        return {f"features.{number}": self.features[number] for number in range(last + 1)}

    def run_every_layer(self, video: Tensor) -> object:
        """Run the layers behind features.13 too."""
        return self.features(frames_of(video))


def _resolve(request: BackboneRequest) -> BackboneSpec:
    layer, channels = _LAYERS[request.stride_among(tuple(_LAYERS))]
    return request.spec(channels=channels, layer=f"features.{layer}", strides=tuple(_LAYERS))


BACKBONES.register(NAME, BackboneFamily(resolve=_resolve, build=MobileNetV2, published=torchvision_weights), __name__)
