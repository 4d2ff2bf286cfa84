"""What the ResNets of PyTorchVideo's hub share: quiet, reproducible building, plain integer sizes, a classifier."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.spec import INSTANCES, BackboneSpec, Normalisation, PublishedWeights
from ifcar.extract.backbones.undrawn import undrawn

_SIZE_FIELDS = ("kernel_size", "stride", "padding", "dilation")


class HubResNet(Backbone):
    """A network of the hub up to res5; its state-dict keys are those of the published file.

    Attributes:
        stage_names: of its first blocks, in order; nothing behind the last is needed for the map.
        classifier_block: number of the block that holds the published classifier.
    """

    stage_names: ClassVar[tuple[str, ...]]
    classifier_block: ClassVar[int]

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        with warnings.catch_warnings(), undrawn():
            # Importing pytorchvideo.models uses torch.jit.script, which today's torch deprecates.
            warnings.simplefilter("ignore")
            dilated = spec.spatial_stride == 16
            dilations = (*((1, 1, 1),) * 3, (1, 2, 2) if dilated else (1, 1, 1))
            self.blocks: nn.ModuleList = self.create((1, 2, 2, 1 if dilated else 2), dilations).blocks
        _make_sizes_plain(self.blocks)

    def create(self, strides: tuple[int, ...], dilations: tuple[tuple[int, int, int], ...]) -> Any:
        """Import from PyTorchVideo and return the network, with these strides and dilations of res2 to res5.

        Its own initialisation draws from the global generator, whose state is put back afterwards.
        """
        raise NotImplementedError

    def stages(self) -> Mapping[str, nn.Module]:
        """Return the blocks up to res5."""
        return dict(zip(self.stage_names, self.blocks, strict=False))

    def classify(self, video: Tensor) -> Tensor:
        """Return logits (B, 400): the published linear layer on the global average of the map."""
        head: Any = self.blocks[self.classifier_block]
        logits: Tensor = head.proj(self(video)[INSTANCES].mean(dim=(2, 3, 4)))
        return logits


def _make_sizes_plain(blocks: nn.Module) -> None:
    """Make every size a built-in int: PyTorchVideo computes some with numpy, and such break torch.compile's graph."""
    for module in blocks.modules():
        if isinstance(module, nn.Conv3d | nn.MaxPool3d | nn.AvgPool3d):
            for field in _SIZE_FIELDS:
                value = getattr(module, field, None)
                if isinstance(value, tuple | list):
                    setattr(module, field, tuple(int(size) for size in value))


def hub_weights(file: str) -> Mapping[str, PublishedWeights]:
    """Return where the hub's weights of a name lie, trained on Kinetics-400."""
    address = f"https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{file}"
    seen = Normalisation.of_all(0.45, 0.225)
    return {"kinetics-400": PublishedWeights(address=address, license="Apache-2.0 (PyTorchVideo)", normalisation=seen)}
