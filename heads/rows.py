"""Working on dense rows of which some are padding: every mean, softmax and statistic counts the real ones only.

A row's mask says whether it is real. Shapes never depend on the mask, so that heads can be stacked (`torch.func.vmap`),
captured and run without waiting for a device. What a layer makes of a padded row is finite and of no use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ifcar.heads.distinct import distinct_rows
from ifcar.heads.standardise import EPS, row_statistics, standardised_linear

MOMENTUM = 0.1


class _Normalise(torch.autograd.Function):
    """y = (x − μ) / √(σ² + ε) · γ + β, with μ and σ² of the real rows, or given ones where `use_batch` is False."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        rows: Tensor, weights: Tensor, mean: Tensor, var: Tensor, use_batch: Tensor, gain: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalised rows, the mean and the variance that were used."""
        count = weights.sum().clamp(min=1)
        mean = torch.where(use_batch, (rows * weights).sum(0) / count, mean)
        centred = rows - mean
        var = torch.where(use_batch, (centred.square() * weights).sum(0) / count, var)
        return torch.addcmul(bias, centred, gain * (var + EPS).rsqrt()), mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        rows, weights, _, _, use_batch, gain, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(rows, weights, use_batch, gain, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return dx = γ/σ · (dy − 1/n Σ dy − x̂/n Σ dy x̂) for real rows, dγ = Σ dy x̂ and dβ = Σ dy."""
        rows, weights, use_batch, gain, mean, var = ctx.saved_tensors
        inverse = (var + EPS).rsqrt()
        d_bias = grad.sum(0)
        d_gain = ((grad * rows).sum(0) - mean * d_bias) * inverse
        scale = gain * inverse
        share = scale * use_batch / weights.sum().clamp(min=1)
        slope = share * inverse * d_gain
        through_statistics = torch.addcmul(share * d_bias - slope * mean, rows, slope)
        d_rows = torch.addcmul(grad * scale, weights, through_statistics, value=-1)
        return d_rows, None, None, None, None, d_gain, d_bias


class RowNorm(nn.Module):
    """Batch normalisation over the real rows of a dense tensor.

    Equals `nn.BatchNorm1d` on the real rows alone, in values, gradients and running statistics, and has its state.
    With fewer than 2 real rows it uses its running statistics, in training too, and leaves them.
    """

    eps = EPS
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_channels: int, affine: bool = True) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.register_parameter("weight", nn.Parameter(torch.empty(num_channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.empty(num_channels)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gains to 1, biases to 0 and the running statistics to those of a standard normal distribution."""
        with torch.no_grad():
            if self.weight is not None and self.bias is not None:
                self.weight.fill_(1)
                self.bias.zero_()
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def extra_repr(self) -> str:
        """Return what tells this layer from another in a printed model."""
        return f"{self.num_channels}, affine={self.weight is not None}"

    def forward(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise, in the precision of the running statistics.

        Args:
            rows: (…, C), finite everywhere.
            mask: (…), True = real, or as numbers, as how many real rows each counts; None = all are.

        Returns:
            (…, C), in the type of `rows`.
        """
        flat = rows.flatten(0, -2).to(self.running_mean.dtype)
        gain = torch.ones_like(self.running_mean) if self.weight is None else self.weight
        bias = torch.zeros_like(self.running_mean) if self.bias is None else self.bias
        if self.training:
            weights = row_weights(flat, mask)
            count = weights.sum()
            known = (self.running_mean, self.running_var)
            out, mean, var = _Normalise.apply(flat, weights, *known, count >= 2, gain, bias)
            self._track(mean, var, count)
        else:
            scale = gain * (self.running_var + EPS).rsqrt()
            out = torch.addcmul(bias, flat - self.running_mean, scale)
        normalised: Tensor = out.to(rows.dtype).view(rows.shape)
        return normalised

    def centre_and_scale(self, rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (μ, 1/σ) of each channel, both (C,), to be folded into the linear layer that follows.

        Args:
            rows: (R, C, bins), zero where the mask is False; a channel's statistics are taken over rows and bins.
            mask: (R,), True = real.
        """
        if not self.training:
            return self.running_mean, (self.running_var + EPS).rsqrt()
        columns = rows.flatten(1)
        weights = row_weights(columns, mask)
        count = weights.sum() * rows.shape[2]
        use_batch = count >= 2
        mean, var = (value.squeeze(0) for value in row_statistics(columns[None], weights[None], rows.shape[2]))
        mean = torch.where(use_batch, mean, self.running_mean)
        var = torch.where(use_batch, var, self.running_var)
        self._track(mean, var, count)
        return mean, (var + EPS).rsqrt()

    def then_linear(self, rows: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise, without gain and bias, and apply a linear layer; see `standardised_linear`.

        Args:
            rows: (R, C, bins), of any floating type; where the mask is False, anything.
            mask: (R,), True = real.
            weight: (D, C · bins).
            bias: (D,).

        Returns:
            (R, D).
        """
        known = (self.running_mean, self.running_var)
        out = standardised_linear(rows, mask, *known, weight, bias, by_batch=self.training)
        if self.training:
            self._track(out.mean, out.var, mask.sum() * rows.shape[2])
        return out.outputs

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Move the running statistics towards a batch's, in place; not at all for a batch of fewer than 2 rows."""
        enough = count >= 2
        unbiased = var * (count / (count - 1).clamp(min=1))
        self.running_mean.add_((mean - self.running_mean) * MOMENTUM * enough)
        self.running_var.add_((unbiased - self.running_var) * MOMENTUM * enough)
        self.num_batches_tracked.add_(enough)


class RowLayers(nn.Sequential):
    """Layers in a row, of which the norms are told which rows are real; padding is computed once, if at all."""

    def forward(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (…, C) with mask (…) to (…, D)."""
        distinct = None if mask is None else distinct_rows(~mask.flatten(), mask.flatten())
        if distinct is None:
            return self.each(rows, mask)
        out = self.each(distinct.take(rows.flatten(0, -2)), distinct.weights)
        return distinct.spread(out).view(*rows.shape[:-1], -1)

    def each(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        """Map every row of (…, C), which counts in the norms as often as its weight (…) says, to (…, D)."""
        for layer in self:
            rows = layer(rows, weights) if isinstance(layer, RowNorm) else layer(rows)
        return rows


def linear_norm_relu(in_dim: int, out_dim: int) -> RowLayers:
    """Return Linear (no bias) → RowNorm → ReLU."""
    return RowLayers(nn.Linear(in_dim, out_dim, bias=False), RowNorm(out_dim), nn.ReLU())


def row_weights(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Return (R, 1), as how many real ones each of (R, C) rows counts: 1, and 0 for padding, or what `mask` says."""
    if mask is None:
        return rows.new_ones(len(rows), 1)
    return mask.reshape(-1, 1).to(rows.dtype)


def add_up(terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of one or more tensors. Unlike `sum`, it adds nothing to a first zero: one pass less."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def keep_real(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` (…, D), finite everywhere, with zeros where `mask` (…) is False."""
    return values * mask.unsqueeze(-1).to(values.dtype)


def masked_mean(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Average `values` (…, D) over axis `dim` of `mask`, counting only True; zero where nothing is True."""
    weights = mask.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(dim) / weights.sum(dim).clamp(min=1)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax of `scores` over the last axis where `mask`, broadcast to them, is True; zero elsewhere."""
    # The lowest finite number, not −∞: a row without any True must not become NaN, also not in its gradient.
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0)


def slot_mask(instance_mask: Tensor) -> Tensor:
    """Return (B, N): True for a slot that is real in at least one of the steps of (B, T′, N)."""
    return instance_mask.any(dim=1)


def step_index(num_frames: int, num_steps: int, device: torch.device) -> Tensor:
    """Return `ifcar.cache.schema.step_frames` as an index tensor."""
    return torch.arange(num_steps, device=device) * (num_frames // num_steps)
