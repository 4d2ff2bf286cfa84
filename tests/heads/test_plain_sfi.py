"""The fast form of SFI gives what the straightforward form gives: outputs, losses, gradients, statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fixtures.plain_sfi import PlainSFI

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.sfi import SFI
from ifcar.testing.batches import random_batch
from ifcar.testing.built_heads import draw_noise

SPEC = CacheSpec.standard(num_frames=10, num_steps=5, num_instances=4, channels=24, pooled_size=3)


def small(preset: str, **options: Any) -> SFI:
    config = SFI.presets[preset]
    joint = replace(config.joint, appearance_dim=32, layout_dim=32, reduction_dim=options.pop("reduction_dim", 0))
    config = replace(config, joint=joint, temporal_hidden_dim=48, temporal_dim=40, **options)
    torch.manual_seed(0)
    return SFI(config, SPEC, 7, ["prediction"])


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("paper", {}),
        ("paper", {"reduction_dim": 16}),
        ("paper", {"history": "window", "edge_relu": True}),
        ("released", {}),
        ("released", {"edge_relu": False}),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_straightforward_form_to_1e_5(preset: str, options: dict[str, Any], training: bool) -> None:
    head = small(preset, **options).train(training)
    draw_noise(head, 16, torch.Generator().manual_seed(0))
    plain = PlainSFI(head).train(training)
    batch, labels = random_batch(16, SPEC), torch.arange(16) % 7
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    results = []
    for model in (head, plain):
        out = model(batch)
        (F.cross_entropy(out.logits, labels) + 5 * out.losses["prediction"]).backward()
        results.append(out)
    torch.testing.assert_close(results[0].logits, results[1].logits, **tolerance)
    torch.testing.assert_close(results[0].losses, results[1].losses, **tolerance)
    for (name, one), (same_name, other) in zip(head.named_parameters(), plain.named_parameters(), strict=True):
        assert name == same_name
        assert one.grad is not None and other.grad is not None
        scale = float(other.grad.abs().max().clamp(min=1))
        torch.testing.assert_close(one.grad / scale, other.grad / scale, msg=lambda m, n=name: f"{n}: {m}", **tolerance)
    torch.testing.assert_close(dict(head.state_dict()), dict(plain.state_dict()), **tolerance)
