"""Folded backbones are the same function, hold no batch normalisation, and compile to one graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fixtures.weights import random_weights, with_torchs_weights
from torch import Tensor

from ifcar.extract.backbones.base import BACKBONES, Backbone
from ifcar.extract.backbones.catalog import build_backbone, names, resolve_backbone
from ifcar.extract.backbones.fold import channels_last, folded
from ifcar.extract.backbones.random_init import BATCH_NORMS
from ifcar.extract.backbones.spec import INSTANCES
from ifcar.extract.backbones.transformers_video import TransformerConfig
from ifcar.extract.weights import load_weights


def video_of(backbone: Backbone) -> Tensor:
    shape = (2, backbone.spec.num_frames, 48, 48, 3)
    return backbone.normalise(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    )


def with_batch_norms() -> list[str]:
    """Return the backbones that have a size of their own; those that read it from their weights have no batch norm."""
    families = {name: BACKBONES.get(name) for name in names()}
    own = [n for n, f in families.items() if f.config_type is not TransformerConfig and not f.variants]
    return [name for name in own if not name.startswith(("none", "swin3d", "mvit", "vggish"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", with_batch_norms())
def test_every_backbone_folded_is_the_same_function(name: str) -> None:
    """Statistics differ from norm to norm, so that a norm folded into another's convolution would show."""
    backbone = with_torchs_weights(build_backbone(resolve_backbone(name, num_frames=16)))
    generator = torch.Generator().manual_seed(0)
    norms = [module for module in backbone.modules() if isinstance(module, BATCH_NORMS)]
    for norm in norms:
        for values, low in ((norm.running_mean, -0.5), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -0.5)):
            assert values is not None
            values.data.copy_(torch.rand(values.shape, generator=generator) + low)
    fused = channels_last(folded(backbone))
    assert norms and not any(isinstance(module, BATCH_NORMS) for module in fused.modules())
    assert sum(isinstance(module, BATCH_NORMS) for module in backbone.modules()) == len(norms)
    video = video_of(backbone)
    with torch.inference_mode():
        for key, expected in backbone(video).items():
            assert (fused(video)[key] - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["i3d_r50", "slowfast_r50", "i3d_inception", "mobilenet_v2"])
def test_folded_backbone_bears_bfloat16_and_compiles_to_one_graph(name: str, tmp_path: Path) -> None:
    backbone = build_backbone(resolve_backbone(name, num_frames=8))
    load_weights(backbone, random_weights(tmp_path, name))
    video = video_of(backbone)
    torch.compiler.reset()  # or numbers in which networks before this one differ are traced as symbols, for minutes
    whole = torch.compile(folded(backbone), fullgraph=True, backend="eager")
    with torch.no_grad():
        expected = backbone(video)[INSTANCES]
        torch.testing.assert_close(whole(video)[INSTANCES], expected, rtol=1e-3, atol=1e-3)
        half = channels_last(folded(backbone).to(torch.bfloat16))(video.to(torch.bfloat16))[INSTANCES].float()
        assert (half - expected).norm() < 0.04 * expected.norm()
