"""The explicit LSTM and GRU against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ifcar.heads.recurrent import FlowGRU, FlowLSTM

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def lstm_pair(num_layers: int) -> tuple[FlowLSTM, nn.LSTM]:
    torch.manual_seed(0)
    theirs = nn.LSTM(5, 5, num_layers=num_layers, batch_first=True).double()
    ours = FlowLSTM(5, num_layers).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_same_names_and_initial_values_as_torchs() -> None:
    torch.manual_seed(3)
    theirs = nn.LSTM(5, 5, num_layers=2, batch_first=True)
    torch.manual_seed(3)
    ours = FlowLSTM(5, 2)
    torch.testing.assert_close(dict(ours.named_parameters()), dict(theirs.named_parameters()), rtol=0, atol=0)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_outputs_and_gradients_equal_torchs(num_layers: int, num_steps: int) -> None:
    ours, theirs = lstm_pair(num_layers)
    x = torch.randn(4, num_steps, 5, dtype=torch.double, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    got, expected = ours(x), theirs(y)[0]
    torch.testing.assert_close(got, expected, **EXACT)
    weights = torch.randn(got.shape, dtype=torch.double)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, **EXACT)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        grad = torch.zeros_like(one) if one.grad is None else one.grad  # one step takes no product with the state
        torch.testing.assert_close(grad, other.grad, msg=name, **EXACT)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(("num_steps", "length"), [(2, 1), (4, 2), (4, 3), (5, 1), (7, 3)])
def test_windows_equal_runs_from_zero(num_layers: int, num_steps: int, length: int) -> None:
    ours, theirs = lstm_pair(num_layers)
    x = torch.randn(4, num_steps, 5, dtype=torch.double)
    outputs, last = ours.with_windows(x, length)
    runs = [theirs(x[:, t - length : t])[0][:, -1] for t in range(length, num_steps)]
    expected = theirs(x)[0]
    torch.testing.assert_close(outputs, expected, **EXACT)
    torch.testing.assert_close(last, torch.stack(runs, dim=1), **EXACT)
    a, b = torch.randn_like(outputs), torch.randn_like(last)
    ((outputs * a).sum() + (last * b).sum()).backward()
    ((expected * a).sum() + (torch.stack(runs, dim=1) * b).sum()).backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, **EXACT)


@pytest.mark.parametrize("num_steps", [1, 5])
def test_gru_has_torchs_names_start_outputs_and_gradients(num_steps: int) -> None:
    torch.manual_seed(0)
    theirs = nn.GRU(5, 3, batch_first=True).double()
    torch.manual_seed(0)
    ours = FlowGRU(5, 3).double()
    torch.testing.assert_close(dict(ours.named_parameters()), dict(theirs.named_parameters()), rtol=0, atol=0)
    x = torch.randn(4, num_steps, 5, dtype=torch.double)
    got, expected = ours(x), theirs(x)[0]
    torch.testing.assert_close(got, expected, **EXACT)
    weights = torch.randn(got.shape, dtype=torch.double)
    for outputs in (got, expected):
        (outputs * weights).sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(torch.zeros_like(one) if one.grad is None else one.grad, other.grad, **EXACT)
