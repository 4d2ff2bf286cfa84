"""Rows that are computed once, or never, against computing them all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.catalog import HEADS
from ifcar.heads.distinct import distinct_rows, holds_something
from ifcar.heads.rows import RowLayers, linear_norm_relu
from ifcar.heads.standardise import rows_linear
from ifcar.pipelines.stacks.noise import draw_noise as stacked_noise
from ifcar.pipelines.stacks.stack import stack_heads
from ifcar.testing.batches import random_batch
from ifcar.testing.built_heads import build_moved
from ifcar.testing.changed_batches import in_double

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
MASKS = [[1, 1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0, 0], [0] * 7]


@pytest.mark.parametrize("real", MASKS)
def test_layers_give_real_rows_what_they_get_among_themselves(real: list[int]) -> None:
    torch.manual_seed(0)
    mask, rows = torch.tensor(real).bool(), torch.randn(7, 3).double()
    ours = RowLayers(*linear_norm_relu(3, 5), *linear_norm_relu(5, 4)).double()
    alone = RowLayers(*linear_norm_relu(3, 5), *linear_norm_relu(5, 4)).double()
    alone.load_state_dict(ours.state_dict())
    got, expected = ours(rows, mask), alone(rows[mask])
    assert got.isfinite().all()
    torch.testing.assert_close(got[mask], expected, **EXACT)
    weights = torch.randn(got.shape).double()
    (got * weights)[mask].sum().backward()
    (expected * weights[mask]).sum().backward()
    for one, other in zip(ours.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, **EXACT)
    torch.testing.assert_close(dict(ours.state_dict()), dict(alone.state_dict()), **EXACT)


@pytest.mark.parametrize("blank", MASKS)
@pytest.mark.parametrize("real", MASKS)
def test_every_row_finds_its_kind_and_weights_count_the_real_ones(blank: list[int], real: list[int]) -> None:
    blank_rows, real_rows = torch.tensor(blank).bool(), torch.tensor(real).bool()
    table = torch.where(blank_rows, -1, torch.arange(7)).unsqueeze(1)
    found = distinct_rows(blank_rows, real_rows)
    if found is None:
        assert blank_rows.sum() <= 1
        return
    assert torch.equal(found.spread(found.take(table)), table)
    counted = [int(real_rows[found.kinds == kind].sum()) for kind in range(len(found.rows))]
    assert found.weights.tolist() == counted


def test_rows_of_zeros_and_padding_have_no_say_but_the_bias() -> None:
    torch.manual_seed(0)
    rows = torch.randn(6, 40, 3).half()
    rows[1], rows[4] = 0, float("nan")
    rows[2] = 0
    rows[2, -1, -1] = -1  # something behind many zeros
    mask = torch.tensor([1, 1, 1, 1, 0, 1]).bool()
    assert holds_something(rows.flatten(1)).tolist() == [True, False, True, True, True, True]
    weight, bias = torch.randn(5, 120).double().requires_grad_(), torch.randn(5).double().requires_grad_()
    clean = rows.double().masked_fill(~mask[:, None, None], 0).flatten(1)
    expected = F.linear(clean, weight, bias)
    factors = torch.randn(6, 5).double()
    wanted = torch.autograd.grad((expected * factors).sum(), (weight, bias))
    got = rows_linear(rows, mask, weight, bias)
    torch.testing.assert_close(got, expected, **EXACT)
    torch.testing.assert_close(torch.autograd.grad((got * factors).sum(), (weight, bias)), wanted, **EXACT)


def test_a_batch_of_zeros_alone_gives_the_bias_and_moves_nothing_else() -> None:
    weight, bias = torch.randn(5, 12).requires_grad_(), torch.randn(5)
    got = rows_linear(torch.zeros(3, 4, 3), torch.tensor([True, True, False]), weight, bias)
    assert torch.equal(got, bias.expand(3, 5))
    got.sum().backward()
    assert weight.grad is not None and not weight.grad.any()


def test_rows_of_zeros_have_a_gradient_where_it_is_asked_for() -> None:
    rows = torch.randn(4, 2, 3).double()
    rows[1] = 0
    rows.requires_grad_()
    weight = torch.randn(5, 6).double()
    rows_linear(rows, torch.ones(4).bool(), weight, torch.zeros(5).double()).sum().backward()
    torch.testing.assert_close(rows.grad, weight.sum(0).view(2, 3).expand(4, 2, 3), **EXACT)


@pytest.mark.parametrize(("name", "preset"), [("stin", "paper"), ("stin", "released-joint"), ("nl", "released")])
def test_heads_with_batches_of_their_own_train_stacked_as_alone(name: str, preset: str) -> None:
    """Stacked, every row is computed; alone, those that differ."""
    spec, kind = (
        CacheSpec.standard(num_frames=4, num_steps=2, num_instances=4, channels=6, pooled_size=2),
        HEADS.get(name),
    )
    config = kind.presets[preset]
    joint = replace(config.joint, appearance_dim=6, layout_dim=4, reduction_dim=0, dropout=0.0)
    heads = [build_moved(kind, replace(config, joint=joint), spec, seed).double() for seed in range(2)]
    batches = [in_double(random_batch(5, spec, seed=seed)) for seed in range(2)]

    def gradients(some: list[Any], arrays: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        stack = stack_heads(some, torch.device("cpu"))
        stack.set_training(True)
        noise = stacked_noise(stack.template, range(len(some)), "fit", 0, 5, torch.device("cpu"))
        out = stack.score(replace(batches[0], arrays=arrays), per_head=True, noise=noise)
        stack.fill_gradients((out.logits * torch.arange(5.0)).square().mean((1, 2)))
        return out.logits.detach(), stack.gradients

    together = gradients(heads, {key: torch.stack([b.arrays[key] for b in batches]) for key in batches[0].arrays})
    for place in range(2):
        alone = gradients(heads[place : place + 1], {k: v.unsqueeze(0) for k, v in batches[place].arrays.items()})
        torch.testing.assert_close([x[place : place + 1] for x in together], list(alone), **EXACT)
