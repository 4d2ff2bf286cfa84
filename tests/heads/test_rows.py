"""Masked statistics and dropout against torch's own layers on the real rows alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ifcar.heads.dropout import Dropout
from ifcar.heads.rows import RowLayers, RowNorm, linear_norm_relu
from ifcar.testing.built_heads import draw_noise

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def norm_pair(affine: bool = True) -> tuple[RowNorm, nn.BatchNorm1d]:
    torch.manual_seed(0)
    ours, theirs = RowNorm(6, affine=affine).double(), nn.BatchNorm1d(6, affine=affine).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(6))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_row_norm_equals_batch_norm_of_the_real_rows(affine: bool, training: bool) -> None:
    ours, theirs = norm_pair(affine)
    mask = torch.rand(5, 3, 4) > 0.4
    for step in range(3):
        rows = 3 + 2 * torch.randn(5, 3, 4, 6, dtype=torch.double, generator=torch.Generator().manual_seed(step))
        a, b = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        weights = torch.randn(rows.shape, dtype=torch.double)
        got = ours.train(training)(a, mask)[mask]
        expected = theirs.train(training)(b[mask])
        torch.testing.assert_close(got, expected, **EXACT)
        (got * weights[mask]).sum().backward()
        (expected * weights[mask]).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, **EXACT)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, **EXACT)
        torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), **EXACT)


def test_row_norm_without_a_mask_counts_every_row() -> None:
    ours, theirs = norm_pair()
    rows = torch.randn(7, 6, dtype=torch.double)
    torch.testing.assert_close(ours(rows), theirs(rows), **EXACT)
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), **EXACT)


def test_gradient_of_row_norm_is_right_where_padded_rows_are_used_too() -> None:
    ours, _ = norm_pair()
    rows, mask = torch.randn(6, 6, dtype=torch.double, requires_grad=True), torch.tensor([1, 1, 0, 1, 0, 1]).bool()
    assert torch.autograd.gradcheck(lambda x: ours(x, mask), rows)


@pytest.mark.parametrize("real", [0, 1])
def test_row_norm_of_fewer_than_2_rows_uses_its_running_statistics_and_leaves_them(real: int) -> None:
    ours, theirs = norm_pair()
    theirs(torch.randn(9, 6, dtype=torch.double))
    ours.load_state_dict(theirs.state_dict())
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    rows, mask = torch.randn(4, 6, dtype=torch.double, requires_grad=True), torch.arange(4) < real
    got = ours.train()(rows, mask)
    torch.testing.assert_close(got, theirs.eval()(rows), **EXACT)
    torch.testing.assert_close(dict(ours.state_dict()), before, rtol=0, atol=0)
    assert torch.autograd.gradcheck(lambda x: ours(x, mask), rows)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("block_values", [1, 60, 2**18])
def test_centre_and_scale_are_those_of_batch_norm_over_rows_and_bins(
    training: bool, block_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifcar.heads.standardise.BLOCK_VALUES", block_values)
    ours, theirs = norm_pair(affine=False)
    mask = torch.tensor([1, 1, 0, 1, 0]).bool()
    for _ in range(2):
        rows = (5 + torch.randn(5, 6, 4, dtype=torch.double)) * mask[:, None, None]
        mean, inverse = ours.train(training).centre_and_scale(rows, mask)
        got = (rows - mean[:, None]) * inverse[:, None]
        torch.testing.assert_close(got[mask], theirs.train(training)(rows[mask]), **EXACT)
        torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), **EXACT)


def test_row_norm_keeps_float32_statistics_of_bf16_rows() -> None:
    norm = RowNorm(6)
    rows = 10 + torch.randn(64, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(rows.bfloat16())
    assert out.dtype == torch.bfloat16 and norm.running_mean.dtype == torch.float32
    torch.testing.assert_close(norm.running_mean, 0.1 * rows.bfloat16().float().mean(0), rtol=1e-5, atol=1e-5)


def test_linear_norm_relu_hands_the_mask_on() -> None:
    torch.manual_seed(0)
    layers = RowLayers(*linear_norm_relu(3, 5), *linear_norm_relu(5, 4))
    rows, mask = torch.randn(6, 3), torch.arange(6) < 4
    torch.testing.assert_close(layers(rows, mask)[:4], layers(rows[:4]))


def test_dropout_keeps_what_its_noise_says_and_scales_it() -> None:
    layer = Dropout(0.25, (3,)).train()
    layer.noise = torch.tensor([[0.0, 0.24, 0.25], [0.9, 0.1, 0.5]])
    values = torch.ones(2, 3)
    torch.testing.assert_close(layer(values), torch.tensor([[0, 0, 4 / 3], [4 / 3, 0, 4 / 3]]))
    torch.testing.assert_close(layer.eval()(values), values, rtol=0, atol=0)


def test_dropout_without_noise_for_the_batch_draws_its_own() -> None:
    layer = Dropout(0.5, (1000,)).train()
    torch.manual_seed(0)
    first = layer(torch.ones(4, 1000))
    torch.testing.assert_close((first == 0).float().mean(), torch.tensor(0.5), rtol=0, atol=0.05)
    draw_noise(layer, 4)
    assert not torch.equal(layer(torch.ones(4, 1000)), first)
    torch.testing.assert_close(layer(torch.ones(4, 1000)), layer(torch.ones(4, 1000)), rtol=0, atol=0)
    assert layer(torch.ones(3, 1000)).shape == (3, 1000)


def test_drawn_noise_depends_on_the_generator_alone_and_stays_out_of_the_state() -> None:
    def noise_of(seed: int) -> list[Any]:
        layers = nn.Sequential(Dropout(0.3, (2, 5)), Dropout(0.1, (4,)))
        draw_noise(layers, 3, torch.Generator().manual_seed(seed))
        assert not layers.state_dict()
        return [layer.noise for layer in layers]

    assert [n.shape for n in noise_of(0)] == [(3, 2, 5), (3, 4)]
    torch.testing.assert_close(noise_of(0), noise_of(0), rtol=0, atol=0)
    assert not torch.equal(noise_of(0)[0], noise_of(1)[0])
