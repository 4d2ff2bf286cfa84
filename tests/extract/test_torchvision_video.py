"""torchvision's video networks and timm's image networks as backbones, against the libraries' own maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from ifcar.errors import InputError
from ifcar.extract.backbones import random_init
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.spec import INSTANCES
from ifcar.extract.weights import load_weights

CASES = [
    ("r2plus1d_18", 16, "layer4", 8, 64),
    ("r2plus1d_18", 8, "layer3", 8, 64),
    ("s3d", 16, "features.12", 16, 64),
    ("s3d", 32, "features.15", 16, 64),
    ("swin3d_t", 32, "permute", 4, 64),
    pytest.param("mvit_v2_s", 32, "norm", 16, 224, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stride", "node", "frames", "size"), CASES)
def test_a_torchvision_file_gives_its_own_map(
    tmp_path: Path, name: str, stride: int, node: str, frames: int, size: int
) -> None:
    torch.manual_seed(0)
    theirs = get_model(name, weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    spec = resolve_backbone(name, num_frames=frames, crop_size=size, spatial_stride=stride)
    backbone = build_backbone(spec)
    load_weights(backbone, str(tmp_path / "model.pth"))
    video = torch.randn(1 if size > 64 else 2, 3, frames, size, size)
    with torch.inference_mode():
        if name == "mvit_v2_s":  # its last norm shares its name with others
            tokens: list[torch.Tensor] = []
            theirs.norm.register_forward_hook(lambda _module, _inputs, output: tokens.append(output))
            theirs(video)
            expected = tokens[0][:, 1:].transpose(1, 2).reshape(len(video), 768, 8, 7, 7)
        else:
            expected = create_feature_extractor(theirs, [node])(video)[node]
        found = backbone.checked(backbone.eval()(video))[INSTANCES]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.fixture
def _short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of two small videos: 25 times less work by the same code; test_weights calibrates as users do."""
    monkeypatch.setattr(random_init, "_CALIBRATION_CLIPS", 2)
    monkeypatch.setattr(random_init, "_CALIBRATION_SIZE", 48)


@pytest.mark.slow(seconds=5)
@pytest.mark.usefixtures("_short_calibration")
@pytest.mark.parametrize(("name", "frames"), [("s3d", 16), ("swin3d_t", 4)])
def test_random_weights_repeat_and_give_finite_maps_that_differ(name: str, frames: int) -> None:
    """Both ways of drawing them: He's for convolutions, and torchvision's own for transformers."""
    maps = [map_of(drawn(name, frames, seed)) for seed in (1, 1, 2)]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-5, atol=1e-5)
    assert (maps[0] - maps[2]).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("_short_calibration")
def test_random_weights_suit_branches_that_end_in_a_sequence() -> None:
    """The last norm of every branch is small, so that no difference grows from layer to layer; no other norm is."""
    backbone = drawn("r2plus1d_18", 8, 1)
    map_of(backbone)
    norms = {name: module for name, module in backbone.named_modules() if isinstance(module, torch.nn.BatchNorm3d)}
    ends = {f"layer{layer}.{block}.conv2.1" for layer in range(1, 5) for block in range(2)}
    assert {name for name, norm in norms.items() if float(norm.weight.detach().max()) < 0.5} == ends


def drawn(name: str, frames: int, seed: int) -> Backbone:
    backbone = build_backbone(resolve_backbone(name, num_frames=frames, crop_size=64))
    load_weights(backbone, f"random:{seed}")
    return backbone


def map_of(backbone: Backbone) -> Tensor:
    shape = (1, 3, backbone.spec.num_frames, 64, 64)
    with torch.inference_mode():
        found = backbone(torch.rand(shape, generator=torch.Generator().manual_seed(0)))[INSTANCES]
    assert found.isfinite().all() and found.std() > 1e-3
    return found


def test_sizes_that_a_network_cannot_take_are_one_line() -> None:
    with pytest.raises(InputError, match="'mvit_v2_s' takes --frames 16 --crop 224 only, not 8 frames of 224 pixels"):
        resolve_backbone("mvit_v2_s", num_frames=8)
    with pytest.raises(InputError, match="'s3d' takes 14 frames or more; 8 were asked for"):
        resolve_backbone("s3d", num_frames=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto"])
def test_timm_gives_its_last_map_frame_by_frame(tmp_path: Path, name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm, the extra 'vit', is not installed")
    sized = {"img_size": 96} if name.startswith("vit") else {}
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False, num_classes=7, **sized).eval()
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    spec = resolve_backbone(f"timm:{name}", num_frames=3, crop_size=96)
    assert spec.normalisation.mean == tuple(theirs.pretrained_cfg["mean"])
    backbone = build_backbone(spec)
    load_weights(backbone, str(tmp_path / "model.pth"))
    video = torch.randn(2, 3, 3, 96, 96)
    with torch.inference_mode():
        found = backbone.checked(backbone(video))[INSTANCES]
        for t in range(3):
            options = {"indices": [-1], "output_fmt": "NCHW", "norm": True, "intermediates_only": True}
            (expected,) = theirs.forward_intermediates(video[:, :, t], **options)
            torch.testing.assert_close(found[:, :, t], expected, rtol=0, atol=1e-4)


def test_unknown_network_of_timm_and_a_missing_name_are_one_line() -> None:
    pytest.importorskip("timm", reason="timm, the extra 'vit', is not installed")
    with pytest.raises(InputError, match=r"'timm:resnet18x': timm cannot build it"):
        resolve_backbone("timm:resnet18x")
    with pytest.raises(InputError, match="expected timm:NAME"):
        resolve_backbone("timm")
