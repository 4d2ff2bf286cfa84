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

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.pytorchvideo_blocks import build_blocks
from ifcar.extract.backbones.spec import INSTANCES, BackboneRequest, BackboneSpec, Normalisation, PublishedWeights

ALPHA = 4
_STAGES = ("conv1", "res2", "res3", "res4", "res5")
_CLASSIFIER_BLOCK = 6


def _published(name: str) -> Mapping[str, PublishedWeights]:
    return {
        "kinetics-400": PublishedWeights(
            address="https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/SLOWFAST_8x8_R50.pyth",
            license="Apache-2.0 (PyTorchVideo)",
            normalisation=Normalisation.of_all(0.45, 0.225),
        )
    }


def _resolve(request: BackboneRequest) -> BackboneSpec:
    return request.spec(
        channels=2304,
        temporal_stride=ALPHA,
        strides=(16, 32),
        layer="blocks.4 (slow, then fast averaged over windows of 4)",
    )


class SlowFastResNet50(Backbone):
    """SlowFast up to res5 of both pathways; keys are those of SLOWFAST_8x8_R50.pyth."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        dilated = spec.spatial_stride == 16

        def build() -> Any:
            from pytorchvideo.models.slowfast import create_slowfast

            # The arguments of pytorchvideo.models.hub.slowfast_r50, and res5's stride and dilation.
            strides = (1, 2, 2, 1 if dilated else 2)
            dilations = (*((1, 1, 1),) * 3, (1, 2, 2) if dilated else (1, 1, 1))
            return create_slowfast(
                model_depth=50,
                slowfast_fusion_conv_kernel_size=(7, 1, 1),
                stage_spatial_strides=(strides, strides),
                stage_conv_b_dilations=(dilations, dilations),
            )

        self.blocks = build_blocks(build)

    def stages(self) -> Mapping[str, nn.Module]:
        """Return conv1 to res5 of both pathways, each with the fusion behind it."""
        return dict(zip(_STAGES, self.blocks, strict=False))

    def forward(self, video: Tensor) -> Maps:
        """Return both pathways (B, 2304, T/4, H, W) for a normalised video (B, 3, T, S, S)."""
        pathways = [video[:, :, ::ALPHA], video]
        for stage in self.stages().values():
            pathways = self.through(stage, pathways)
        slow, fast = pathways
        fast = fast.reshape(*fast.shape[:2], -1, ALPHA, *fast.shape[3:]).mean(dim=3)
        return {INSTANCES: torch.cat([slow, fast], dim=1)}

    def classify(self, video: Tensor) -> Tensor:
        """Return logits (B, 400): the published linear layer on the global average of both pathways.

        The windows have equal length, so this average equals that of the published head at 32 × 224 × 224.
        """
        head: Any = self.blocks[_CLASSIFIER_BLOCK]
        logits: Tensor = head.proj(self(video)[INSTANCES].mean(dim=(2, 3, 4)))
        return logits


BACKBONES.register(
    "slowfast_r50", BackboneFamily(resolve=_resolve, build=SlowFastResNet50, published=_published), __name__
)
