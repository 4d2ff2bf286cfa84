"""Graphs over the instances of a clip and convolutions on them (Wang and Gupta 2018, §4.2–5).

A node is an instance at a step; nodes are numbered step by step, M = T′·N. A graph is (B, M, M): row i holds the
weights with which node i gathers from the others. Rows and columns of empty slots are zero. A graph that links each
step to one neighbour only is stored as T′ blocks (N, N); the rest of its M × M weights are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.heads.rows import add_up, masked_softmax
from ifcar.heads.zero_linear import ZeroLinear


class SimilarityGraph(nn.Module):
    """Similarity in feature space, normalised over each row.

        F(x_i, x_j) = φ(x_i)ᵀ φ′(x_j),  φ(x) = w x,  φ′(x) = w′ x;   G_ij = exp F_ij / Σ_j exp F_ij

    A constant graph passes no gradient, neither to the nodes nor to φ and φ′, which stay as they were drawn.

    Source: Wang and Gupta 2018, Eq. 1–2.
    """

    def __init__(self, width: int, *, constant: bool = False) -> None:
        super().__init__()
        self.constant = constant
        self.phi = nn.Linear(width, width, bias=False).requires_grad_(not constant)
        self.phi_prime = nn.Linear(width, width, bias=False).requires_grad_(not constant)

    def forward(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Return the graph (B, M, M) of nodes (B, M, D) with mask (B, M), True = real."""
        nodes = nodes.detach() if self.constant else nodes
        affinity = self.phi(nodes) @ self.phi_prime(nodes).transpose(1, 2)
        return masked_softmax(affinity, mask.unsqueeze(1) & mask.unsqueeze(2))


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union (…, N, L) of boxes (…, N, 4) with boxes (…, L, 4), both (cx, cy, w, h)."""
    first, second = first.unsqueeze(-2), second.unsqueeze(-3)
    low = torch.maximum(first[..., :2] - first[..., 2:] / 2, second[..., :2] - second[..., 2:] / 2)
    high = torch.minimum(first[..., :2] + first[..., 2:] / 2, second[..., :2] + second[..., 2:] / 2)
    intersection = (high - low).clamp(min=0).prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepGraph:
    """A graph in which each step's nodes gather from one neighbouring step only.

    Args:
        blocks: (B, T′, N, N); row i of block t holds the weights of node i of step t. The step without such a neighbour
            (the last one if `ahead`, else the first) has a block of zeros.
        ahead: True: the nodes of step t gather from step t + 1; False: from step t − 1.
    """

    blocks: Tensor
    ahead: bool

    def __matmul__(self, nodes: Tensor) -> Tensor:
        """Map nodes (B, M, D) to what each of them gathers, (B, M, D)."""
        steps = nodes.view(len(nodes), *self.blocks.shape[1:3], nodes.shape[2])
        # roll, not a slice: autograd would pad the slice's gradient. The step that wraps round meets a block of zeros.
        return (self.blocks @ steps.roll(-1 if self.ahead else 1, 1)).flatten(1, 2)

    def dense(self) -> Tensor:
        """Return the graph (B, M, M) with its zeros."""
        offset, blocks = (1, self.blocks[:, :-1]) if self.ahead else (-1, self.blocks[:, 1:])
        by_step = torch.diag_embed(blocks.permute(0, 2, 3, 1), offset=offset, dim1=1, dim2=3)
        return by_step.flatten(3, 4).flatten(1, 2)  # (B, T′, N, T′, N) before


Graph = Tensor | StepGraph


def spatial_temporal_graphs(boxes: Tensor, mask: Tensor) -> tuple[StepGraph, StepGraph]:
    """Link boxes that overlap in neighbouring steps, forwards and backwards in time.

        G^front_ij = σ_ij / Σ_j σ_ij,   G^back_ji = σ_ij / Σ_i σ_ij,   σ_ij the IoU of box i at t and box j at t + 1

    A box that overlaps none, as every box of the last step does in the front graph, has a row of zeros.

    Source: Wang and Gupta 2018, §4.3, Eq. 3.

    Args:
        boxes: (B, T′, N, 4).
        mask: (B, T′, N), True = real.

    Returns:
        The front and the back graph.
    """
    linked = mask[:, :-1].unsqueeze(-1) & mask[:, 1:].unsqueeze(-2)  # (B, T′ − 1, N, N)
    overlap = pairwise_iou(boxes[:, :-1], boxes[:, 1:]).masked_fill(~linked, 0)
    forwards, backwards = row_normalised(overlap), row_normalised(overlap.transpose(2, 3))
    last, first = (0, 0, 0, 0, 0, 1), (0, 0, 0, 0, 1, 0)
    return StepGraph(blocks=F.pad(forwards, last), ahead=True), StepGraph(blocks=F.pad(backwards, first), ahead=False)


def row_normalised(weights: Tensor) -> Tensor:
    """Scale the last axis of weights ≥ 0 to a sum of 1; a row of zeros stays one."""
    total = weights.sum(-1, keepdim=True)
    return weights / total.clamp(min=torch.finfo(total.dtype).tiny)


class GraphConvolution(nn.Module):
    """One layer over one or several graphs, Z = Σ_i G_i X W_i.

    Source: Wang and Gupta 2018, Eq. 4–5.
    """

    def __init__(self, width: int, num_graphs: int, linear: type[nn.Linear]) -> None:
        super().__init__()
        self.weights = nn.ModuleList(linear(width, width, bias=False) for _ in range(num_graphs))

    def forward(self, graphs: Sequence[Graph], nodes: Tensor) -> Tensor:
        """Map nodes (B, M, D) to (B, M, D)."""
        return add_up([graph @ weight(nodes) for graph, weight in zip(graphs, self.weights, strict=True)])


class GraphNetwork(nn.Module):
    """Graph convolutions in a row, LayerNorm and ReLU between them; the last layer starts at zero.

    Source: Wang and Gupta 2018, §5 and §6.
    Differs in the released code of Yan et al.: no LayerNorm, a ReLU after the last layer too, no layer at zero.
    """

    def __init__(
        self, width: int, num_graphs: int, layers: int, *, last_activation: bool, norm: bool, zero_start: bool
    ) -> None:
        super().__init__()
        kinds = [nn.Linear] * (layers - 1) + [ZeroLinear if zero_start else nn.Linear]
        self.convolutions = nn.ModuleList(GraphConvolution(width, num_graphs, kind) for kind in kinds)
        norms = (nn.LayerNorm(width) if norm else nn.Identity() for _ in range(layers - 1 + last_activation))
        self.norms = nn.ModuleList(norms)

    def forward(self, graphs: Sequence[Graph], nodes: Tensor) -> Tensor:
        """Map nodes (B, M, D) to (B, M, D)."""
        for i, convolution in enumerate(self.convolutions):
            nodes = convolution(graphs, nodes)
            if i < len(self.norms):
                nodes = F.relu(self.norms[i](nodes))
        return nodes
