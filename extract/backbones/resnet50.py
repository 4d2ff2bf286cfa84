"""`resnet50`: torchvision's image network, trained on ImageNet, on every frame by itself.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition"; architecture (stride in the 3 × 3 convolution)
and weights: torchvision. Shapes for T × S × S: layer4 (2048, T, S/32, S/32); spatial stride 16 replaces layer4's stride
by dilation, which keeps every state-dict key.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ifcar.extract.backbones.base import BACKBONES, BackboneFamily
from ifcar.extract.backbones.per_frame import PerFrame, torchvision_weights
from ifcar.extract.backbones.random_init import ENDS_BRANCH
from ifcar.extract.backbones.spec import BackboneRequest, BackboneSpec
from ifcar.extract.backbones.undrawn import undrawn

NAME = "resnet50"
_LAYERS = ("layer1", "layer2", "layer3", "layer4")


class ResNet50(PerFrame):
    """ResNet-50 up to layer4; keys are torchvision's."""

    def __init__(self, spec: BackboneSpec) -> None:
        from torchvision.models import resnet50

        super().__init__(spec)
        dilated = spec.spatial_stride == 16
        with undrawn():
            self.adopt(resnet50(weights=None, replace_stride_with_dilation=[False, False, dilated]))
        for layer in _LAYERS:
            for block in self.get_submodule(layer).children():
                setattr(block.bn3, ENDS_BRANCH, True)

    def stages(self) -> Mapping[str, nn.Module]:
        """Return conv1 (with its norm and pool) and layer1 to layer4."""
        first = nn.Sequential(*(self.get_submodule(name) for name in ("conv1", "bn1", "relu", "maxpool")))
        return {"conv1": first, **{name: self.get_submodule(name) for name in _LAYERS}}


def _resolve(request: BackboneRequest) -> BackboneSpec:
    return request.spec(channels=2048, layer="layer4", strides=(16, 32))


BACKBONES.register(NAME, BackboneFamily(resolve=_resolve, build=ResNet50, published=torchvision_weights), __name__)
