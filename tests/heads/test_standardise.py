"""The standardised linear layer against batch normalisation and a linear layer, one after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from ifcar.heads.standardise import standardised_linear

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
R, C, BINS, D = 7, 5, 4, 3
MASK = torch.tensor([1, 1, 0, 1, 0, 1, 1]).bool()


def inputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.double, generator=generator)

    return {
        "rows": 3 + 2 * draw(R, C, BINS),
        "mean": draw(C),
        "var": draw(C).square(),
        "weight": draw(D, C * BINS),
        "bias": draw(D),
    }


def one_after_the_other(given: dict[str, Tensor], mask: Tensor, *, by_batch: bool) -> Tensor:
    """Outputs of the real rows."""
    norm = nn.BatchNorm1d(C, affine=False).double().train(by_batch)
    norm.running_mean, norm.running_var = given["mean"].clone(), given["var"].clone()
    return F.linear(norm(given["rows"][mask]).flatten(1), given["weight"], given["bias"])


@pytest.mark.parametrize("block_values", [1, 41, 2**17])
@pytest.mark.parametrize("by_batch", [True, False])
def test_values_and_gradients_are_those_of_batch_norm_and_a_linear_layer(
    by_batch: bool, block_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifcar.heads.standardise.BLOCK_VALUES", block_values)
    ours = {key: value.requires_grad_(key in ("rows", "weight", "bias")) for key, value in inputs().items()}
    theirs = {key: value.requires_grad_(key in ("rows", "weight", "bias")) for key, value in inputs().items()}
    got = standardised_linear(mask=MASK, **ours, by_batch=by_batch).outputs[MASK]
    expected = one_after_the_other(theirs, MASK, by_batch=by_batch)
    torch.testing.assert_close(got, expected, **EXACT)
    weights = torch.randn(got.shape, dtype=torch.double)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    for key in ("rows", "weight", "bias"):
        torch.testing.assert_close(ours[key].grad, theirs[key].grad, **EXACT)


def test_what_padding_holds_changes_nothing_and_gets_no_gradient() -> None:
    given = inputs()
    clean = standardised_linear(mask=MASK, **given, by_batch=True)
    given["rows"][~MASK] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e300]).double()
    given["rows"].requires_grad_()
    dirty = standardised_linear(mask=MASK, **given, by_batch=True)
    torch.testing.assert_close(tuple(dirty), tuple(clean), rtol=0, atol=0)
    dirty.outputs.sum().backward()
    assert given["rows"].grad is not None and not given["rows"].grad[~MASK].any()


def test_fewer_than_two_values_take_the_known_statistics() -> None:
    given = inputs() | {"rows": inputs()["rows"][:, :, :1], "weight": inputs()["weight"][:, :C]}
    mask = torch.arange(R) == 2
    out = standardised_linear(mask=mask, **given, by_batch=True)
    torch.testing.assert_close((out.mean, out.var), (given["mean"], given["var"]), rtol=0, atol=0)
    assert torch.autograd.gradcheck(
        lambda rows: standardised_linear(mask=mask, **{**given, "rows": rows}, by_batch=True).outputs[mask],
        given["rows"].requires_grad_(),
    )


@pytest.mark.parametrize("shared", [True, False])
def test_a_stack_gives_each_head_what_it_gets_alone(shared: bool) -> None:
    each = [inputs(seed) for seed in range(3)]
    if shared:
        each = [own | {"rows": each[0]["rows"]} for own in each]
    stacked = {key: torch.stack([own[key] for own in each]) for key in each[0]}
    rows = each[0]["rows"] if shared else stacked["rows"]
    leaves = [value.requires_grad_() for value in (rows, stacked["weight"], stacked["bias"])]

    def one(rows: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return standardised_linear(rows, MASK, mean, var, weight, bias, by_batch=True).outputs

    dims = (None if shared else 0, 0, 0, 0, 0)
    together = vmap(one, in_dims=dims)(leaves[0], stacked["mean"], stacked["var"], *leaves[1:])
    factors = torch.randn(together.shape, dtype=torch.double)
    gradients = torch.autograd.grad((together * factors).sum(), leaves)
    alone = []
    for place, own in enumerate(each):
        values = [own[key].detach().clone().requires_grad_() for key in ("rows", "weight", "bias")]
        out = one(values[0], own["mean"], own["var"], *values[1:])
        torch.testing.assert_close(together[place], out, **EXACT)
        alone.append(torch.autograd.grad((out * factors[place]).sum(), values))
    d_rows, d_weight, d_bias = (torch.stack(parts) for parts in zip(*alone, strict=True))
    torch.testing.assert_close(gradients[0], d_rows.sum(0) if shared else d_rows, **EXACT)
    torch.testing.assert_close(gradients[1:], (d_weight, d_bias), **EXACT)


def test_under_autocast_products_are_rounded_and_statistics_are_not() -> None:
    given = {key: value.float() for key, value in inputs().items()}
    given["weight"].requires_grad_()
    exact = standardised_linear(mask=MASK, **given, by_batch=True)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = standardised_linear(mask=MASK, **given, by_batch=True)
    assert rounded.outputs.dtype == torch.bfloat16
    torch.testing.assert_close(rounded[1:], exact[1:], rtol=0, atol=0)
    torch.testing.assert_close(rounded.outputs.float(), exact.outputs, rtol=0.05, atol=0.1)
    (gradient,) = torch.autograd.grad(rounded.outputs.float().sum(), given["weight"])
    assert gradient.dtype == torch.float32


@pytest.mark.parametrize("by_batch", [True, False])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_mean_of_many_sigma_costs_no_accuracy(precision: torch.dtype, by_batch: bool) -> None:
    """Outputs and gradients at |μ| = 100 σ are as near to float64 as at μ = 0, in float32 and under bfloat16."""
    generator = torch.Generator().manual_seed(0)
    noise, factors = (torch.randn(*shape, generator=generator).double() for shape in ((64, 32, 9), (64, 16)))
    weight = torch.randn(16, 32 * 9, generator=generator).double() / 17
    errors = []
    for centre in (0.0, 100.0):
        rows = (noise + centre).float()
        known = rows.double().mean((0, 2)), rows.double().var((0, 2))
        results = []
        for dtype in (torch.float64, torch.float32):
            own = weight.to(dtype).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32 and precision == torch.bfloat16):
                out = standardised_linear(
                    rows.to(dtype),
                    torch.ones(64, dtype=torch.bool),
                    *(value.to(dtype) for value in known),
                    own,
                    torch.zeros(16, dtype=dtype),
                    by_batch=by_batch,
                ).outputs
            (gradient,) = torch.autograd.grad((out.to(dtype) * factors.to(dtype)).sum(), own)
            results.append((out.double(), gradient.double()))
        errors.append(
            [float((a - b).detach().abs().max() / b.detach().std()) for a, b in zip(*reversed(results), strict=True)]
        )
    unit = 1e-5 if precision == torch.float32 else 0.02
    assert max(errors[0]) < 2 * unit
    assert max(errors[1]) < 5 * unit
