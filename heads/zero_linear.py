"""A linear layer that starts at zero."""

from __future__ import annotations

from torch import nn


class ZeroLinear(nn.Linear):
    """Linear layer whose initial weights are zero, also when they are drawn again.

    What it feeds starts as if the layer were not there, and learns from the first step on, as long as nothing between
    it and the loss has a zero slope at zero (a ReLU has).
    """

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
