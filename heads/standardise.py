"""Standardisation by batch statistics and the linear layer after it as one: the inputs are read, never rewritten.

    y = W (x − μ)/σ + b = (W/σ) (x − c) + (b − (W/σ) (μ − c))

c is μ itself, or with several heads on the same rows the first one's: so nothing large is taken from something large
where |μ| is many σ, in the product, in its gradient and under bfloat16.

For cached features, by far the largest tensors of a head. They are converted and cleaned where they are used, and on a
CPU one head of a stack at a time, so that what a product reads is still in the core's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

EPS = 1e-5
BLOCK_VALUES = 2**17


class Standardised(NamedTuple):
    """What the layer gives: outputs (R, D), and the mean and variance (C,) that it used."""

    outputs: Tensor
    mean: Tensor
    var: Tensor


def standardised_linear(
    rows: Tensor, mask: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, *, by_batch: bool
) -> Standardised:
    """Standardise each channel of `rows`, then apply a linear layer over channels and bins.

    Args:
        rows: (R, C, bins), of any floating type; where the mask is False, anything.
        mask: (R,), True = real.
        mean: (C,) known mean.
        var: (C,) known variance.
        weight: (D, C · bins).
        bias: (D,).
        by_batch: take mean and variance over the real rows and their bins, where these are at least 2 values.

    Returns:
        Outputs in the type that autocast gives products, else the weights'. A row that is not real gives the outputs of
        zeros and gets and passes no gradient. The statistics are not differentiable by themselves; the gradient of
        `rows` goes through them.
    """
    stacked = (value.unsqueeze(0) for value in (rows, mask, mean, var, weight, bias))
    return Standardised(*(value.squeeze(0) for value in _StandardisedLinear.apply(*stacked, by_batch)))


class _StandardisedLinear(torch.autograd.Function):
    """`standardised_linear` of M heads: every tensor has a leading axis of M, or of 1 where all heads have the same."""

    @staticmethod
    def forward(
        rows: Tensor, mask: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, by_batch: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs (M, R, D), and the means and variances (M, C)."""
        num_heads, num_rows, bins = len(weight), rows.shape[1], rows.shape[3]
        outputs = weight.new_empty((num_heads, num_rows, weight.shape[1]), dtype=product_type(weight))
        means, variances = weight.new_empty(num_heads, mean.shape[1]), weight.new_empty(num_heads, mean.shape[1])
        for heads, own in _parts(num_heads, rows):
            values, real = clean(rows[own], mask[own], weight.dtype), mask[own].unsqueeze(2).to(weight.dtype)
            means[heads], variances[heads] = mean[heads], var[heads]
            if by_batch:
                enough = real.sum(1) * bins >= 2
                batch_mean, batch_var = row_statistics(values, real, bins)
                means[heads] = torch.where(enough, batch_mean, means[heads])
                variances[heads] = torch.where(enough, batch_var, variances[heads])
            centre = means[heads].repeat_interleave(bins, 1)
            values -= centre[: len(values)].unsqueeze(1)
            scaled = weight[heads] * (variances[heads] + EPS).rsqrt().repeat_interleave(bins, 1).unsqueeze(1)
            left = centre - centre[: len(values)]  # of each head's mean, zero where it has rows of its own
            shift = bias[heads] - (scaled @ left.unsqueeze(2)).squeeze(2)
            products = _product(values.to(outputs.dtype), scaled.to(outputs.dtype))
            torch.add(products, shift.unsqueeze(1), out=outputs[heads])
        return outputs, means, variances

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        rows, mask, _, _, weight, _, by_batch = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(rows, mask, weight, *output[1:])
        ctx.by_batch, ctx.bins = by_batch, rows.shape[3]
        ctx.product_type = output[0].dtype

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Run the heads of a stack as one; each brings its axis of 1."""
        tensors = [
            value if dim is None else value.movedim(dim, 0).squeeze(1)
            for value, dim in zip(inputs[:-1], in_dims, strict=False)
        ]
        rows, mask, *own = tensors
        expanded = [value.expand(info.batch_size, *value.shape[1:]) for value in own]
        if len(rows) != len(mask):
            rows, mask = (value.expand(info.batch_size, *value.shape[1:]) for value in (rows, mask))
        outputs = _StandardisedLinear.apply(rows, mask, *expanded, inputs[-1])
        return tuple(value.unsqueeze(1) for value in outputs), (0, 0, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of rows, weight and bias."""
        rows, mask, weight, mean, var = ctx.saved_tensors
        bins, product = ctx.bins, ctx.product_type
        d_weight, d_bias = torch.empty_like(weight), weight.new_empty(weight.shape[:2])
        d_rows = rows.new_zeros(rows.shape) if ctx.needs_input_grad[0] else None
        for heads, own in _parts(len(weight), rows):
            values, real = clean(rows[own], mask[own], weight.dtype), mask[own].unsqueeze(2).to(weight.dtype)
            inverse = (var[heads] + EPS).rsqrt().repeat_interleave(bins, 1).unsqueeze(1)  # (m, 1, C · bins)
            centre = mean[heads].repeat_interleave(bins, 1).unsqueeze(1)
            values -= centre[: len(values)]
            left = centre - centre[: len(values)]
            kept = grad[heads] * real.to(grad.dtype)
            d_bias[heads] = kept.sum(1)
            products = _weight_gradient(kept.to(product), values.to(product)).to(weight.dtype)
            torch.addcmul(products, d_bias[heads].unsqueeze(2), left, value=-1, out=d_weight[heads]).mul_(inverse)
            if d_rows is not None:
                through = (kept.to(product) @ weight[heads].to(product)).to(weight.dtype)
                if ctx.by_batch:
                    through = _through_statistics(through, (values - left) * inverse, real, bins)
                d_own = (through * inverse * real).view(-1, *rows.shape[1:]).to(rows.dtype)
                d_rows[own] += d_own.sum(0, keepdim=True) if len(rows) == 1 else d_own
        return d_rows, None, None, None, d_weight, d_bias, None


def clean(rows: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows (m, R, C, bins) as (m, R, C · bins) of `dtype`, zero where mask (m, R) is False."""
    values = rows.flatten(2).to(dtype, copy=True)
    if values.device.type != "cpu":
        return values.masked_fill_(~mask.unsqueeze(2), 0)
    values.flatten(0, 1).index_fill_(0, (~mask).flatten().nonzero().squeeze(1), 0)  # touches padding alone
    return values


def row_statistics(values: Tensor, real: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance (m, C) of each channel, over real rows and bins.

    Args:
        values: (m, R, C · bins), zero where not real.
        real: (m, R, 1), 1 for real rows and 0 for padding.
        bins: values of a channel in a row.
    """
    count = real.sum(1).clamp(min=1)
    mean = values.sum(1) / count
    # On a CPU in blocks, whose temporaries stay in its cache.
    rows = max(1, BLOCK_VALUES // values.shape[2]) if values.device.type == "cpu" else values.shape[1]
    var = torch.zeros_like(mean)
    for part, weights in zip(torch.split(values, rows, 1), torch.split(real, rows, 1), strict=True):
        centred = torch.addcmul(part, weights, mean.unsqueeze(1), value=-1)
        var = var + centred.square().sum(1)
    mean, var = (value.view(len(values), -1, bins) for value in (mean, var / count))
    channel_mean = mean.mean(2)
    # A channel's variance is the mean of its bins' own variances plus the variance of their means.
    return channel_mean, var.mean(2) + (mean - channel_mean.unsqueeze(2)).square().mean(2)


def product_type(weight: Tensor) -> torch.dtype:
    """Return the type in which autocast has products of these weights made."""
    device = weight.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else weight.dtype


def _parts(num_heads: int, rows: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield the heads that are computed at once, and their place in `rows`."""
    shared = len(rows) == 1
    step = num_heads if shared or rows.device.type != "cpu" else 1
    for first in range(0, num_heads, step):
        heads = slice(first, first + step)
        yield heads, slice(0, 1) if shared else heads


def _product(values: Tensor, weight: Tensor) -> Tensor:
    """Return values (m or 1, R, I) times transposed weights (m, D, I): (m, R, D); one product for shared values."""
    if len(values) > 1:
        return values @ weight.transpose(1, 2)
    together = values[0] @ weight.flatten(0, 1).T
    return together.view(len(together), len(weight), -1).transpose(0, 1)


def _weight_gradient(grad: Tensor, values: Tensor) -> Tensor:
    """Return transposed grad (m, R, D) times values (m or 1, R, I): (m, D, I)."""
    if len(values) > 1:
        return grad.transpose(1, 2) @ values
    together = grad.transpose(0, 1).flatten(1).T @ values[0]
    return together.view(len(grad), -1, values.shape[2])


def _through_statistics(grad: Tensor, standardised: Tensor, real: Tensor, bins: int) -> Tensor:
    """Return dx̂ − mean(dx̂) − x̂ mean(dx̂ x̂), the means of each channel over real rows and bins: (m, R, C · bins).

    A part of too few real values to have statistics keeps `grad`.
    """
    count = real.sum(1, keepdim=True) * bins
    enough = count >= 2
    by_channel = [(value * real).sum(1).view(len(grad), -1, bins).sum(2) for value in (grad, grad * standardised)]
    share = enough / count.clamp(min=1)
    mean, slope = (value.repeat_interleave(bins, 1).unsqueeze(1) * share for value in by_channel)
    return grad - mean - standardised * slope
