"""Computing rows that are the same once, and rows of zeros never: where shapes may follow values, as on a CPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Distinct(NamedTuple):
    """The rows of a table that differ, and where they stand in it.

    Args:
        rows: (R′,) the number of one row of each kind.
        weights: (R′,) for how many real rows it stands; 0 for padding.
        kinds: (R,) of each row, the place of its kind in `rows`.
    """

    rows: Tensor
    weights: Tensor
    kinds: Tensor

    def take(self, values: Tensor) -> Tensor:
        """Return (R′, D) of (R, D)."""
        return values.index_select(0, self.rows)

    def spread(self, values: Tensor) -> Tensor:
        """Return (R, D) of (R′, D)."""
        return values.index_select(0, self.kinds)


def distinct_rows(blank: Tensor, real: Tensor) -> Distinct | None:
    """Say which rows to compute where blank ones are all the same, or nobody reads what becomes of them.

    Args:
        blank: (R,) bool.
        real: (R,) bool, False = padding.

    Returns:
        Every row that is not blank and one that is; None where all are to be computed: where at most one is blank, and
        where shapes must not follow values, see `ifcar.heads.contract.Head`.
    """
    if not may_shape(blank):
        return None
    filled = (~blank).nonzero().squeeze(1)
    if len(filled) + 1 >= len(blank):
        return None
    first = blank.nonzero()[0]
    kinds = torch.where(blank, len(filled), (~blank).cumsum(0) - 1)
    weights = torch.cat([real[filled].long(), (blank & real).sum().unsqueeze(0)])
    return Distinct(torch.cat([filled, first]), weights, kinds)


def may_shape(values: Tensor) -> bool:
    """Return whether shapes may follow these values.

    Heads of a stack that have batches of their own must agree in shapes, and a GPU would have to be waited for.
    """
    return values.device.type == "cpu" and not torch._C._functorch.is_batchedtensor(values)


def holds_something(rows: Tensor) -> Tensor:
    """Return (R,), False where (R, W) holds zeros alone."""
    some = rows[:, :16].any(1)  # of most rows this tells
    unknown = (~some).nonzero().squeeze(1)
    largest = rows.index_select(0, unknown).to(torch.promote_types(rows.dtype, torch.float32)).abs_().amax(1)
    return some.index_copy_(0, unknown, largest != 0)  # NaN is something
