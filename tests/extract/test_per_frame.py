"""Image networks on every frame: torchvision's own maps, its files key by key, the normalisation that it publishes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.spec import IMAGENET, INSTANCES
from ifcar.extract.weights import load_weights


def up_to(network: nn.Module, layer: str, pictures: Tensor) -> Tensor:
    """Return what torchvision's tracer finds at a layer."""
    traced = create_feature_extractor(network, {layer: "map"})
    found: Tensor = traced(pictures)["map"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stride", "channels", "cells", "options"),
    [
        ("mobilenet_v2", 32, 1280, 2, {}),
        ("mobilenet_v2", 16, 96, 4, {}),
        ("resnet50", 32, 2048, 2, {}),
        ("resnet50", 16, 2048, 4, {"replace_stride_with_dilation": [False, False, True]}),
    ],
)
def test_map_is_what_torchvision_computes_of_each_frame(
    tmp_path: Path, name: str, stride: int, channels: int, cells: int, options: dict[str, list[bool]]
) -> None:
    """From a file of torchvision's keys, normalised with ImageNet's statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        published = torchvision.models.get_model(name, weights=None, **options).eval()
    torch.save(published.state_dict(), tmp_path / "w.pth")
    backbone = build_backbone(resolve_backbone(name, num_frames=3, crop_size=64, spatial_stride=stride))
    load_weights(backbone, str(tmp_path / "w.pth"))
    frames = torch.randint(0, 256, (2, 3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    with torch.inference_mode():
        found = backbone.checked(backbone(backbone.normalise(frames)))[INSTANCES]
        assert found.shape == (2, channels, 3, cells, cells)
        for clip in range(2):
            for t in range(3):
                picture = (frames[clip, t].permute(2, 0, 1) / 255 - mean) / std
                expected = up_to(published, backbone.spec.layer, picture[None])[0]
                assert (found[clip, :, t] - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(("name", "digits"), [("mobilenet_v2", "b0353104"), ("resnet50", "0676ba61")])
def test_published_weights_carry_their_tag_digits_and_statistics(name: str, digits: str) -> None:
    spec = resolve_backbone(name, weights="imagenet1k-v2")
    assert list(spec.published) == ["imagenet1k-v1", "imagenet1k-v2"]
    first = spec.published["imagenet1k-v1"]
    assert first.sha256 == digits and first.address.endswith(f"{name}-{digits}.pth")
    assert spec.normalisation == first.normalisation == IMAGENET and not spec.facts
