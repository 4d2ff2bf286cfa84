"""A linear layer on cached features, alone or with the standardisation before it: the inputs are read, never rewritten.

    y = W (x − μ)/σ + b = (W/σ) (x − c) + (b − (W/σ) (μ − c))

c is μ itself, or with several heads on the same rows the first one's: so nothing large is taken from something large
where |μ| is many σ, in the product, in its gradient and under bfloat16.

For cached features, by far the largest tensors of a head. They are converted and cleaned where they are used, and on a
CPU one head of a stack at a time, so that what a product reads is still in the core's cache, and only those that count:
padding, and without standardisation rows of zeros, have no products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifcar.heads.distinct import holds_something, may_shape

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
        Outputs in the type that autocast gives products, else the weights'. A row that is not real gives something
        finite and of no use, and gets no gradient. The statistics are not differentiable by themselves; the gradient of
        `rows` goes through them.
    """
    stacked = (value.unsqueeze(0) for value in (rows, mask, mean, var, weight))
    outputs, *statistics = (value.squeeze(0) for value in _RowsLinear.apply(*stacked, by_batch))
    return Standardised(outputs + bias.to(outputs.dtype), *statistics)


def rows_linear(rows: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a linear layer over channels and bins, as `standardised_linear` does after standardising.

    Returns:
        (R, D); a row that is not real, whatever it holds, gives the bias.
    """
    counted = mask
    if may_shape(rows) and may_shape(mask) and not rows.requires_grad:
        counted = mask & holds_something(rows.flatten(1))
    stacked = (value.unsqueeze(0) for value in (rows, counted))
    outputs: Tensor = _RowsLinear.apply(*stacked, None, None, weight.unsqueeze(0), False)[0].squeeze(0)
    return outputs + bias.to(outputs.dtype)


class _RowsLinear(torch.autograd.Function):
    """Both without their bias, for M heads: every tensor has a leading axis of M, or of 1 where all have the same.

    Without mean and variance nothing is standardised, and rows that are not real give zeros.
    """

    @staticmethod
    def forward(
        rows: Tensor, mask: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor, by_batch: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return outputs (M, R, D), and the means and variances (M, C)."""
        num_heads, num_rows, bins = len(weight), rows.shape[1], rows.shape[3]
        outputs = weight.new_empty((num_heads, num_rows, weight.shape[1]), dtype=product_type(weight))
        means = variances = None
        if mean is not None and var is not None:
            means, variances = (known.expand(num_heads, -1).clone() for known in (mean, var))
        for heads, own in _parts(num_heads, rows):
            part, scaled, shift = _take(rows[own], mask[own], weight.dtype), weight[heads], None
            if means is not None and variances is not None:
                if by_batch:
                    enough = part.real.sum(1) * bins >= 2
                    batch_mean, batch_var = row_statistics(part.values, part.real, bins)
                    means[heads] = torch.where(enough, batch_mean, means[heads])
                    variances[heads] = torch.where(enough, batch_var, variances[heads])
                centre = means[heads].repeat_interleave(bins, 1)
                part.values.sub_(centre[: len(part.values)].unsqueeze(1))
                scaled = scaled * (variances[heads] + EPS).rsqrt().repeat_interleave(bins, 1).unsqueeze(1)
                if len(part.values) < len(scaled):  # what is left of each head's mean, which is not the first one's
                    shift = (scaled @ (centre[:1] - centre).unsqueeze(2)).transpose(1, 2)
            products = _product(part.values.to(outputs.dtype), scaled.to(outputs.dtype))
            part.spread(products if shift is None else products + shift, outputs[heads])
        return outputs, means, variances

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        rows, mask, _, _, weight, by_batch = inputs
        ctx.mark_non_differentiable(*(value for value in output[1:] if value is not None))
        ctx.save_for_backward(rows, mask, weight, *output[1:])
        ctx.by_batch, ctx.bins = by_batch, rows.shape[3]
        ctx.product_type = output[0].dtype

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor | None, ...], tuple[int | None, ...]]:
        """Run the heads of a stack as one; each brings its axis of 1."""
        rows, mask, *own = (
            value if dim is None else value.movedim(dim, 0).squeeze(1)
            for value, dim in zip(inputs[:-1], in_dims, strict=False)
        )
        size = info.batch_size
        own = [None if value is None else value.expand(size, *value.shape[1:]) for value in own]
        if len(rows) != len(mask):
            rows, mask = (value.expand(size, *value.shape[1:]) for value in (rows, mask))
        found = _RowsLinear.apply(rows, mask, *own, inputs[-1])
        dims = tuple(None if value is None else 0 for value in found)
        return tuple(None if value is None else value.unsqueeze(1) for value in found), dims

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of rows and weight."""
        rows, mask, weight, mean, var = ctx.saved_tensors
        bins, product = ctx.bins, ctx.product_type
        d_weights = []
        d_rows = rows.new_zeros(rows.shape) if ctx.needs_input_grad[0] else None
        for heads, own in _parts(len(weight), rows):
            part = _take(rows[own], mask[own], weight.dtype)
            values, kept = part.values, part.take(grad[heads])
            inverse = None
            if mean is not None:
                inverse = (var[heads] + EPS).rsqrt().repeat_interleave(bins, 1).unsqueeze(1)  # (m, 1, C · bins)
                centre = mean[heads].repeat_interleave(bins, 1).unsqueeze(1)
                values -= centre[: len(values)]
                left = centre - centre[: len(values)]
            products = _weight_gradient(kept.to(product), values.to(product)).to(weight.dtype)
            if inverse is not None:
                products.addcmul_(kept.sum(1).to(weight.dtype).unsqueeze(2), left, value=-1).mul_(inverse)
            d_weights.append(products)
            if d_rows is not None:
                through = (kept.to(product) @ weight[heads].to(product)).to(weight.dtype)
                if ctx.by_batch:
                    through = _through_statistics(through, (values - left) * inverse, part.real, bins)
                through = through * part.real if inverse is None else through * inverse * part.real
                d_own = part.spread(through, through.new_empty(len(through), *rows.shape[1:]).flatten(2))
                d_own = d_own.view(-1, *rows.shape[1:]).to(rows.dtype)
                d_rows[own] += d_own.sum(0, keepdim=True) if len(rows) == 1 else d_own
        return d_rows, None, None, None, d_weights[0] if len(d_weights) == 1 else torch.cat(d_weights), None


class _Part(NamedTuple):
    """The rows of a part that are computed.

    Args:
        values: (m, R′, C · bins), zero where they are not real.
        real: (m, R′, 1), 1 for real rows and 0 for padding.
        places: (R′,) where they stand among all R; None: they are all.
    """

    values: Tensor
    real: Tensor
    places: Tensor | None

    def take(self, dense: Tensor) -> Tensor:
        """Return of (m, R, D) the rows that are computed, zero where they are not real."""
        return dense * self.real.to(dense.dtype) if self.places is None else dense.index_select(1, self.places)

    def spread(self, values: Tensor, out: Tensor) -> Tensor:
        """Write (m, R′, D) to where they belong in `out` (m, R, D), zeros elsewhere, and return it."""
        return out.copy_(values) if self.places is None else out.zero_().index_copy_(1, self.places, values)


def _take(rows: Tensor, mask: Tensor, dtype: torch.dtype) -> _Part:
    """Return what is computed of rows (m, R, C, bins) with mask (m, R): on a CPU, where m is 1, the real rows alone."""
    values = rows.flatten(2)
    if rows.device.type != "cpu":
        values = values.to(dtype, copy=True).masked_fill_(~mask.unsqueeze(2), 0)
        return _Part(values, mask.unsqueeze(2).to(dtype), None)
    places = mask[0].nonzero().squeeze(1)
    taken = values.to(dtype, copy=True) if len(places) == mask.shape[1] else values.index_select(1, places).to(dtype)
    return _Part(taken, taken.new_ones(1, len(places), 1), places)


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
    return together.view(len(together), *weight.shape[:2]).transpose(0, 1)


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
