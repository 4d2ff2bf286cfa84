"""The attentive probe against loops over its formula, token by token and head by head, and transformers' pooler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ifcar.errors import InputError
from ifcar.heads.attentive_probe import INIT_STD, AttentiveProbe, AttentiveProbeConfig
from ifcar.heads.contract import InstanceBatch
from ifcar.testing.batches import SPEC, random_batch
from ifcar.testing.built_heads import build_moved
from ifcar.testing.changed_batches import in_double


def build(**options: Any) -> tuple[Any, InstanceBatch]:
    config = replace(AttentiveProbeConfig(num_heads=2, blocks=3), **options)
    return build_moved(AttentiveProbe, config, SPEC).double().eval(), in_double(random_batch(3, SPEC))


def gather(queries: list[Tensor], keys: list[Tensor], values: list[Tensor], num_heads: int) -> list[Tensor]:
    size = len(queries[0]) // num_heads
    out = []
    for q in queries:
        parts = []
        for h in range(num_heads):
            own = slice(h * size, (h + 1) * size)
            scores = torch.stack([(q[own] @ k[own] / size**0.5).exp() for k in keys])
            parts.append(sum((s / scores.sum() * v[own] for s, v in zip(scores, values, strict=True)), q[own] * 0))
        out.append(torch.cat(parts))
    return out


def mlp(block: Any, x: Tensor) -> Tensor:
    return x + block.fc2(F.gelu(block.fc1(F.layer_norm(x, x.shape, block.norm2.weight, block.norm2.bias, 1e-5))))


@pytest.mark.parametrize("blocks", [1, 3])
def test_logits_equal_the_formula_written_out(blocks: int) -> None:
    head, batch = build(blocks=blocks)
    logits = head(batch).logits
    for clip, grid in enumerate(batch.array("grid_features")):
        x = [grid[t, :, r, c] for t in range(4) for r in range(3) for c in range(3)]
        for block in head.blocks:
            normed = [F.layer_norm(t, t.shape, block.norm1.weight, block.norm1.bias, 1e-5) for t in x]
            q, k, v = ([block.qkv(t).chunk(3)[i] for t in normed] for i in range(3))
            x = [mlp(block, t + block.proj(y)) for t, y in zip(x, gather(q, k, v, 2), strict=True)]
        cross, q0 = head.cross, head.query.tokens[0, 0]
        normed = [F.layer_norm(t, t.shape, cross.norm1.weight, cross.norm1.bias, 1e-5) for t in x]
        k, v = ([cross.key_value(t).chunk(2)[i] for t in normed] for i in range(2))
        (y,) = gather([cross.query(q0)], k, v, 2)
        torch.testing.assert_close(logits[clip], head.classifier(mlp(cross, q0 + y)), rtol=0, atol=1e-9)


def test_weights_start_as_the_evaluations_do() -> None:
    """Truncated normal; what ends block i divided by √(2i), the query's MLP by that of the last block."""
    torch.manual_seed(0)
    head: Any = AttentiveProbe(AttentiveProbeConfig(hidden_dim=64), SPEC, 5)
    ends = [(layer, i) for i, block in enumerate(head.blocks, 1) for layer in (block.proj, block.fc2)]
    ends.append((head.cross.fc2, 3))
    assert len(ends) == 7
    for layer, depth in ends:
        assert layer.weight.std().item() == pytest.approx(INIT_STD / (2 * depth) ** 0.5, rel=0.05)
        assert not layer.bias.any()
    assert head.blocks[2].qkv.weight.std().item() == pytest.approx(INIT_STD, rel=0.05)


def test_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match=r"num_heads is 4; expected a divisor of the width, 6"):
        AttentiveProbe(AttentiveProbeConfig(num_heads=4), SPEC, 5)


@pytest.mark.slow
def test_equals_the_pooler_of_transformers() -> None:
    vjepa2 = pytest.importorskip(
        "transformers.models.vjepa2.modeling_vjepa2", reason="transformers, the extra 'vit', is not installed"
    )
    configuration = pytest.importorskip("transformers.models.vjepa2.configuration_vjepa2")
    config = configuration.VJEPA2Config(
        hidden_size=6, num_attention_heads=2, num_pooler_layers=2, mlp_ratio=4, layer_norm_eps=1e-6
    )
    torch.manual_seed(1)
    config._attn_implementation = "sdpa"  # the eager form takes its softmax in float32
    pooler = vjepa2.VJEPA2AttentivePooler(config).double().eval()
    with torch.no_grad():
        for parameter in pooler.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    head, batch = build(norm_eps=1e-6)
    theirs = pooler.state_dict()
    state = {"query.tokens": theirs["query_tokens"]}
    state |= {f"classifier.{name}": value for name, value in head.classifier.state_dict().items()}
    places = [(f"blocks.{i}", f"self_attention_layers.{i}", "self_attn") for i in range(2)]
    for ours, other, attention in [*places, ("cross", "cross_attention_layer", "cross_attn")]:
        for leaf in ("weight", "bias"):
            q, k, v = (theirs[f"{other}.{attention}.{name}_proj.{leaf}"] for name in "qkv")
            for fc in ("fc1", "fc2"):
                state[f"{ours}.{fc}.{leaf}"] = theirs[f"{other}.mlp.{fc}.{leaf}"]
            for norm in ("norm1", "norm2"):
                state[f"{ours}.{norm}.{leaf}"] = theirs[f"{other}.layer_{norm}.{leaf}"]
            if ours == "cross":
                state |= {f"cross.query.{leaf}": q, f"cross.key_value.{leaf}": torch.cat([k, v])}
            else:
                state[f"{ours}.qkv.{leaf}"] = torch.cat([q, k, v])
                state[f"{ours}.proj.{leaf}"] = theirs[f"{other}.{attention}.out_proj.{leaf}"]
    head.load_state_dict(state)
    tokens = batch.array("grid_features").permute(0, 1, 3, 4, 2).flatten(1, 3)
    expected = head.classifier(pooler(tokens))
    torch.testing.assert_close(head(batch).logits, expected, rtol=0, atol=1e-12)
