"""`slowfast_r50`: SlowFast ResNet-50 of PyTorchVideo's hub, trained on Kinetics-400 with 32 frames, every 2nd.

Source: Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition"; architecture and weights:
PyTorchVideo, model zoo entry SlowFast 8x8 R50. The T sampled frames go through the fast pathway; the slow one
takes frames 0, 4, 8, … (α = 4), the frames that `step_frames` names. Shapes for T × S × S: slow
(2048, T/4, S/32, S/32), fast (256, T, S/32, S/32); the fast map is averaged over each window of 4 frames and
concatenated behind the slow one: (2304, T/4, S/32, S/32). Spatial stride 16 dilates res5 of both pathways.
Differs: PyTorchVideo's demonstration picks the slow frames by `linspace(0, T − 1, T/4)`, which for T = 32 is
0, 4, 8, 13, 17, 22, 26, 31; the paper and the fusion convolutions (stride 4 in time) have every 4th frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ifcar.extract.backbones.base import BACKBONES, BackboneFamily, Maps
from ifcar.extract.backbones.pytorchvideo_blocks import HubResNet, hub_weights
from ifcar.extract.backbones.spec import INSTANCES, BackboneRequest, BackboneSpec

ALPHA = 4


def _resolve(request: BackboneRequest) -> BackboneSpec:
    return request.spec(
        channels=2304,
        temporal_stride=ALPHA,
        strides=(16, 32),
        layer="blocks.4 (slow, then fast averaged over windows of 4)",
    )


class SlowFastResNet50(HubResNet):
    """SlowFast up to res5 of both pathways, each stage with the fusion behind it.

    Keys are those of SLOWFAST_8x8_R50.pyth. The windows have equal length, so what `classify` averages equals the
    average of the published head at 32 × 224 × 224.
    """

    stage_names = ("conv1", "res2", "res3", "res4", "res5")
    classifier_block = 6

    def create(self, strides: tuple[int, ...], dilations: tuple[tuple[int, int, int], ...]) -> Any:
        """Return the network: the arguments of pytorchvideo.models.hub.slowfast_r50, and res5's stride and dilation."""
        from pytorchvideo.models.slowfast import create_slowfast

        return create_slowfast(
            model_depth=50,
            slowfast_fusion_conv_kernel_size=(7, 1, 1),
            stage_spatial_strides=(strides, strides),
            stage_conv_b_dilations=(dilations, dilations),
        )

    def forward(self, video: Tensor) -> Maps:
        """Return both pathways (B, 2304, T/4, H, W) for a normalised video (B, 3, T, S, S)."""
        pathways = [video[:, :, ::ALPHA], video]
        for stage in self.stages().values():
            pathways = self.through(stage, pathways)
        slow, fast = pathways
        fast = fast.reshape(*fast.shape[:2], -1, ALPHA, *fast.shape[3:]).mean(dim=3)
        return {INSTANCES: torch.cat([slow, fast], dim=1)}


BACKBONES.register(
    "slowfast_r50",
    BackboneFamily(resolve=_resolve, build=SlowFastResNet50, published=lambda _: hub_weights("SLOWFAST_8x8_R50.pyth")),
    __name__,
)
