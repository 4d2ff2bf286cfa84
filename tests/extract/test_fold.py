"""Folded backbones are the same function, hold no batch normalisation, and compile to one graph."""

from __future__ import annotations

import pytest
import torch

from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.fold import folded
from ifcar.extract.backbones.random_init import BATCH_NORMS
from ifcar.extract.backbones.spec import INSTANCES
from ifcar.extract.weights import load_weights


@pytest.mark.parametrize(
    ("name", "frames", "stride"), [("i3d_r50", 4, 16), ("slowfast_r50", 8, 32), ("i3d_inception", 8, 16)]
)
def test_folded_backbone_is_the_same_function_in_one_graph(name: str, frames: int, stride: int) -> None:
    backbone = build_backbone(resolve_backbone(name, num_frames=frames, spatial_stride=stride)).eval()
    load_weights(backbone, "random:0")
    fused = folded(backbone)
    assert not any(isinstance(m, BATCH_NORMS) for m in fused.modules())
    assert any(isinstance(m, BATCH_NORMS) for m in backbone.modules())  # the original is left alone
    pixels = torch.randint(
        0, 256, (2, frames, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    video = backbone.normalise(pixels)
    with torch.inference_mode():
        expected, found = backbone(video)[INSTANCES], fused(video)[INSTANCES]
        error = (found - expected).norm() / expected.norm()
        assert error < 1e-5
        half = fused.to(torch.bfloat16)(video.to(torch.bfloat16))[INSTANCES].float()
        assert (half - expected).norm() / expected.norm() < 0.03
    whole = torch.compile(folded(backbone), fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(whole(video)[INSTANCES], found, rtol=1e-4, atol=1e-4)
