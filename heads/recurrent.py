"""An LSTM and a GRU with explicit products: stackable, counted, and the LSTM's shared with windows of a sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FlowLSTM(nn.Module):
    """Stacked LSTM from a zero state, with the parameters and initial values of `nn.LSTM(batch_first=True)`.

        i, f, o = σ(W x_t + b + U h_{t−1} + c);   g = tanh(…);   c_t = f c_{t−1} + i g;   h_t = o tanh(c_t)

    W x_t of all steps is one product for a layer, and the first step, whose h is zero, takes no product with U.

    Args:
        width: of inputs, states and outputs.
        num_layers: layers in a row.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = width, num_layers
        for layer in range(num_layers):
            for kind in ("ih", "hh"):
                self.register_parameter(f"weight_{kind}_l{layer}", nn.Parameter(torch.empty(4 * width, width)))
            for kind in ("ih", "hh"):
                self.register_parameter(f"bias_{kind}_l{layer}", nn.Parameter(torch.empty(4 * width)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every value from [−1/√width, 1/√width]."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        """Return what tells this layer from another in a printed model."""
        return f"{self.hidden_size}, num_layers={self.num_layers}"

    def forward(self, sequences: Tensor) -> Tensor:
        """Return the outputs (M, T′, D) of sequences (M, T′, D)."""
        return torch.stack(self._run(self._input_products(0, sequences.unbind(1))), dim=1)

    def with_windows(self, sequences: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Run over whole sequences, and from zero again over every window of `length` steps that has one after it.

        The windows share the first layer's input products with the whole; the first of them is its beginning.

        Args:
            sequences: (M, T′, D).
            length: at least 1 and less than T′.

        Returns:
            The outputs (M, T′, D), and each window's last output (M, T′ − length, D), by the window's first step.
        """
        products = self._input_products(0, sequences.unbind(1))
        outputs = self._run(products)
        num_more = len(products) - length - 1
        first = outputs[length - 1].unsqueeze(1)
        if num_more == 0:
            return torch.stack(outputs, dim=1), first
        steps = [torch.stack(products[k + 1 : k + 1 + num_more], dim=1).flatten(0, 1) for k in range(length)]
        last = self._run(steps)[-1].view(len(sequences), num_more, -1)
        return torch.stack(outputs, dim=1), torch.cat([first, last], dim=1)

    def _weight(self, kind: str, layer: int) -> Tensor:
        weight = getattr(self, f"{kind}_l{layer}")
        assert isinstance(weight, Tensor)  # not a Parameter where heads are stacked
        return weight

    def _input_products(self, layer: int, steps: Sequence[Tensor]) -> list[Tensor]:
        """Return W x_t + b + c of every step: (M, D) to (M, 4D)."""
        bias = self._weight("bias_ih", layer) + self._weight("bias_hh", layer)
        products = F.linear(torch.cat(list(steps)), self._weight("weight_ih", layer), bias)
        return list(products.chunk(len(steps)))

    def _run(self, products: list[Tensor]) -> list[Tensor]:
        """Return the last layer's outputs from the first layer's input products."""
        outputs = self._run_layer(0, products)
        for layer in range(1, self.num_layers):
            outputs = self._run_layer(layer, self._input_products(layer, outputs))
        return outputs

    def _run_layer(self, layer: int, products: list[Tensor]) -> list[Tensor]:
        recurrent = self._weight("weight_hh", layer)
        hidden: Tensor | None = None
        cell: Tensor | None = None
        outputs = []
        for product in products:
            gates = product if hidden is None else product + F.linear(hidden, recurrent)
            i, f, g, o = gates.chunk(4, dim=-1)
            new = i.sigmoid() * g.tanh()
            cell = new if cell is None else f.sigmoid() * cell + new
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return outputs


class FlowGRU(nn.Module):
    """One GRU layer from a zero state, with the parameters and initial values of `nn.GRU(batch_first=True)`.

        ρ, ζ = σ(W x_t + b + V r_{t−1} + d);   n = tanh(W x_t + b + ρ (V r_{t−1} + d));   r_t = (1 − ζ) n + ζ r_{t−1}

    W x_t of all steps is one product, and the first step, whose r is zero, takes no product with V.

    Args:
        in_dim: of the inputs.
        width: of the states.
    """

    def __init__(self, in_dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight_ih_l0 = nn.Parameter(torch.empty(3 * width, in_dim))
        self.weight_hh_l0 = nn.Parameter(torch.empty(3 * width, width))
        self.bias_ih_l0 = nn.Parameter(torch.empty(3 * width))
        self.bias_hh_l0 = nn.Parameter(torch.empty(3 * width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every value from [−1/√width, 1/√width]."""
        bound = self.width**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        """Return what tells this layer from another in a printed model."""
        return f"{self.weight_ih_l0.shape[1]}, {self.width}"

    def forward(self, sequences: Tensor) -> Tensor:
        """Return the states (M, S, width) of sequences (M, S, in_dim)."""
        state: Tensor | None = None
        states = []
        for product in F.linear(sequences, self.weight_ih_l0, self.bias_ih_l0).unbind(1):
            of_input = product.chunk(3, dim=-1)
            recurrent = self.bias_hh_l0 if state is None else F.linear(state, self.weight_hh_l0, self.bias_hh_l0)
            reset, update, new = recurrent.chunk(3, dim=-1)
            keep = (of_input[1] + update).sigmoid()
            candidate = (of_input[2] + (of_input[0] + reset).sigmoid() * new).tanh()
            state = (1 - keep) * candidate if state is None else (1 - keep) * candidate + keep * state
            states.append(state)
        return torch.stack(states, dim=1)
