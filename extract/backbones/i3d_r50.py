"""`i3d_r50`: the inflated ResNet-50 of PyTorchVideo's hub, trained on Kinetics-400 with 8 frames, every 8th.

Source: Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?"; Wang and Gupta 2018 for its use under
regions; architecture and weights: PyTorchVideo, model zoo entry I3D 8x8 R50 (top-1 73.27 on Kinetics-400).
Shapes for T × S × S: blocks[5] (res5) gives (2048, T/2, S/32, S/32). Spatial stride 16 replaces res5's stride by
dilation 2, which keeps every weight's receptive field and state-dict key: (2048, T/2, S/16, S/16).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ifcar.extract.backbones.base import BACKBONES, BackboneFamily, Maps
from ifcar.extract.backbones.pytorchvideo_blocks import HubResNet, hub_weights
from ifcar.extract.backbones.spec import INSTANCES, BackboneRequest, BackboneSpec


def _resolve(request: BackboneRequest) -> BackboneSpec:
    return request.spec(channels=2048, temporal_stride=2, strides=(16, 32), layer="blocks.5")


class I3DResNet50(HubResNet):
    """Inflated ResNet-50 up to res5; keys are those of I3D_8x8_R50.pyth.

    At 8 × 224 × 224 and stride 32 `classify` is the published head; on larger inputs that one averages over sliding
    windows of 4 × 7 × 7 instead.
    """

    stage_names = ("conv1", "res2", "pool2", "res3", "res4", "res5")  # Wang and Gupta 2018, Table 1; conv1 has its pool
    classifier_block = 6

    def create(self, strides: tuple[int, ...], dilations: tuple[tuple[int, int, int], ...]) -> Any:
        """Return the network: the arguments of pytorchvideo.models.hub.i3d_r50, and res5's stride and dilation."""
        from pytorchvideo.models.resnet import create_resnet

        return create_resnet(
            stem_conv_kernel_size=(5, 7, 7),
            stage1_pool=nn.MaxPool3d,
            stage_conv_a_kernel_size=((3, 1, 1), *([(3, 1, 1), (1, 1, 1)],) * 2, [(1, 1, 1), (3, 1, 1)]),
            stage_spatial_h_stride=strides,
            stage_spatial_w_stride=strides,
            stage_conv_b_dilation=dilations,
        )

    def forward(self, video: Tensor) -> Maps:
        """Return res5's output (B, 2048, T/2, H, W) for a normalised video (B, 3, T, S, S)."""
        for stage in self.stages().values():
            video = self.through(stage, video)
        return {INSTANCES: video}


BACKBONES.register(
    "i3d_r50",
    BackboneFamily(resolve=_resolve, build=I3DResNet50, published=lambda _: hub_weights("I3D_8x8_R50.pyth")),
    __name__,
)
