"""Blocks of the front end against torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ifcar.heads.embedding import OneHotEmbedding


@pytest.mark.parametrize("scale_grad_by_freq", [True, False])
def test_category_embedding_equals_torchs(scale_grad_by_freq: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.Embedding(3, 5, padding_idx=0, scale_grad_by_freq=scale_grad_by_freq).double()
    torch.manual_seed(0)
    ours = OneHotEmbedding(3, 5, scale_grad_by_freq=scale_grad_by_freq).double()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=0)
    with torch.no_grad():
        ours.weight[0] = theirs.weight[0] = 2.0
    categories, weights = torch.randint(0, 3, (4, 2, 6)), torch.randn(4, 2, 6, 5, dtype=torch.double)
    for layer in (ours, theirs):
        (layer(categories) * weights).sum().backward()
    torch.testing.assert_close(ours(categories), theirs(categories), rtol=0, atol=0)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-12, atol=1e-12)
