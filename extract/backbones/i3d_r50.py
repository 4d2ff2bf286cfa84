"""`i3d_r50`: the inflated ResNet-50 of PyTorchVideo's hub, trained on Kinetics-400 with 8 frames, every 8th.

Source: Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?"; Wang and Gupta 2018 for its use under
regions; architecture and weights: PyTorchVideo, model zoo entry I3D 8x8 R50 (top-1 73.27 on Kinetics-400).
Shapes for T × S × S: blocks[5] (res5) gives (2048, T/2, S/32, S/32). Spatial stride 16 replaces res5's stride by
dilation 2, which keeps every weight's receptive field and state-dict key: (2048, T/2, S/16, S/16).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.pytorchvideo_blocks import build_blocks
from ifcar.extract.backbones.spec import INSTANCES, BackboneRequest, BackboneSpec, Normalisation, PublishedWeights

_STAGES = ("conv1", "res2", "pool2", "res3", "res4", "res5")  # Wang and Gupta 2018, Table 1


def _published(name: str) -> Mapping[str, PublishedWeights]:
    return {
        "kinetics-400": PublishedWeights(
            address="https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/I3D_8x8_R50.pyth",
            license="Apache-2.0 (PyTorchVideo)",
            normalisation=Normalisation.of_all(0.45, 0.225),
        )
    }


def _resolve(request: BackboneRequest) -> BackboneSpec:
    return request.spec(channels=2048, temporal_stride=2, strides=(16, 32), layer="blocks.5")


class I3DResNet50(Backbone):
    """Inflated ResNet-50 up to res5; keys are those of I3D_8x8_R50.pyth."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        dilated = spec.spatial_stride == 16

        def build() -> Any:
            from pytorchvideo.models.resnet import create_resnet

            # The arguments of pytorchvideo.models.hub.i3d_r50, and res5's stride and dilation.
            return create_resnet(
                stem_conv_kernel_size=(5, 7, 7),
                stage1_pool=nn.MaxPool3d,
                stage_conv_a_kernel_size=(
                    (3, 1, 1),
                    [(3, 1, 1), (1, 1, 1)],
                    [(3, 1, 1), (1, 1, 1)],
                    [(1, 1, 1), (3, 1, 1)],
                ),
                stage_spatial_h_stride=(1, 2, 2, 1 if dilated else 2),
                stage_spatial_w_stride=(1, 2, 2, 1 if dilated else 2),
                stage_conv_b_dilation=(*((1, 1, 1),) * 3, (1, 2, 2) if dilated else (1, 1, 1)),
            )

        self.blocks = build_blocks(build)

    def stages(self) -> Mapping[str, nn.Module]:
        """Return conv1 (with its pool), res2, the temporal pool, and res3 to res5."""
        return dict(zip(_STAGES, self.blocks, strict=False))

    def forward(self, video: Tensor) -> Maps:
        """Return res5's output (B, 2048, T/2, H, W) for a normalised video (B, 3, T, S, S)."""
        for stage in self.stages().values():
            video = self.through(stage, video)
        return {INSTANCES: video}

    def classify(self, video: Tensor) -> Tensor:
        """Return logits (B, 400): the published linear layer on the global average of res5.

        At 8 × 224 × 224 and stride 32 this is the published head; on larger inputs that one averages over
        sliding windows of 4 × 7 × 7 instead.
        """
        head: Any = self.blocks[len(_STAGES)]
        logits: Tensor = head.proj(self(video)[INSTANCES].mean(dim=(2, 3, 4)))
        return logits


BACKBONES.register("i3d_r50", BackboneFamily(resolve=_resolve, build=I3DResNet50, published=_published), __name__)
