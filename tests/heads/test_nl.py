"""The non-local head against literal loops over its formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import InputError
from ifcar.heads.attention import NonLocal
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.nl import NL, NLConfig
from ifcar.testing.batches import SPEC, random_batch
from ifcar.testing.built_heads import build_moved
from ifcar.testing.changed_batches import map_batch

EXACT = {"rtol": 0, "atol": 1e-12}


def small_nl(**options: Any) -> tuple[Any, InstanceBatch]:
    config = NLConfig(key_dim=3, step_dim=6, hidden_dim=7, **options)
    joint = replace(config.joint, appearance_dim=8, layout_dim=8, reduction_dim=0)
    head = build_moved(NL, replace(config, joint=joint), SPEC).double().eval()
    return head, map_batch(random_batch(7, SPEC, seed=2), lambda _, v: v.double() if v.is_floating_point() else v)


def literal_block(block: Any, nodes: list[torch.Tensor], attention: str) -> list[torch.Tensor]:
    """Run one non-local block on a clip's real nodes, pair by pair."""
    theta, phi, g, w = (getattr(block.attention, n) for n in ("query", "key", "value", "output"))
    out = []
    for x_i in nodes:
        pairs = [theta(x_i) @ phi(x_j) for x_j in nodes]
        if attention == "softmax":
            exps = [(p / theta.out_features**0.5).exp() for p in pairs]
            weights = [e / sum(exps) for e in exps]
        else:
            weights = [p / len(nodes) for p in pairs]
        y_i = sum(a * g(x_j) for a, x_j in zip(weights, nodes, strict=True))
        out.append(x_i + w(y_i))
    return out


@pytest.mark.parametrize("attention", ["softmax", "dot"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_logits_equal_the_formula_written_out(attention: Any, blocks: int) -> None:
    head, batch = small_nl(attention=attention, blocks=blocks)
    joint = head.joint(batch)
    logits = head(batch).logits
    for b, (f, real) in enumerate(zip(joint.features, joint.instance_mask, strict=True)):
        where = [(t, i) for t in range(f.shape[0]) for i in range(f.shape[1]) if real[t, i]]
        nodes = [f[t, i] for t, i in where]
        for block in head.blocks:
            nodes = literal_block(block, nodes, attention)
        z = dict(zip(where, nodes, strict=True))
        instances = []
        for i in range(f.shape[1]):
            if not real[:, i].any():
                continue
            steps = [head.step(z[t, i]) if (t, i) in z else torch.zeros(6).double() for t in range(f.shape[0])]
            instances.append(head.temporal(torch.cat(steps)))
        expected = head.classifier(sum(instances) / len(instances))
        torch.testing.assert_close(logits[b], expected, **EXACT)


@pytest.mark.parametrize("attention", ["softmax", "dot"])
def test_block_starts_as_the_identity(attention: Any) -> None:
    torch.manual_seed(0)
    block, mask = NonLocal(6, 3, attention), torch.rand(2, 5) > 0.4
    nodes = torch.randn(2, 5, 6) * mask[..., None]
    torch.testing.assert_close(block(nodes, mask), nodes, rtol=0, atol=0)


def test_paper_preset_has_the_papers_dimensions() -> None:
    spec = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4, channels=2048, pooled_size=3)
    head = NL(NL.presets["paper"], spec, 174)
    assert len(head.blocks) == 1
    attention: Any = head.blocks[0].attention
    assert attention.query.weight.shape == attention.key.weight.shape == attention.value.weight.shape == (512, 1024)
    assert attention.output.weight.shape == (1024, 512)
    assert head.step.weight.shape == (512, 1024)
    assert head.temporal.weight.shape == (512, 4 * 512)
    assert head.classifier.weight.shape == (174, 512)


def test_unknown_attention_is_refused() -> None:
    with pytest.raises(InputError, match="attention is 'gaussian'; expected one of softmax, dot"):
        NLConfig(attention="gaussian")  # type: ignore[arg-type]
