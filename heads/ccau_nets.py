"""The networks of CCAU: a stream, its side of an alignment, and the last layers of its tasks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.heads.ccau_config import CCAUConfig
from ifcar.heads.ccau_parts import PROJECTION_DIM, BlockEncoder, CellAttention, ConvGRU, UniformAttention, weighted


class StreamNet(nn.Module):
    """One stream from its map to the states of its cells and the context of each block."""

    def __init__(self, config: CCAUConfig, spec: CacheSpec, *, plain: bool) -> None:
        super().__init__()
        self.plain = plain
        width, blocks = config.embedding_dim, 1 if plain else config.num_blocks
        height, across = (spec.grid_size or (1, 1)) if config.features == "grid" else (1, 1)
        self.num_cells = height * across
        self.encoder = BlockEncoder(spec, blocks, width, input_norm=config.input_norm, rectify=not plain)
        self.gru = None if plain else ConvGRU(width, config.gru_dropout, blocks, self.num_cells)
        attends = config.attention != "off" and self.num_cells > 1 and not plain
        self.attention = CellAttention(width, self.num_cells, config.temperature) if attends else UniformAttention()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states (B, N, HW, D) and the contexts (B, N, D) of a map (B, T′, C[, H, W])."""
        states: Tensor = self.encoder(features)
        if self.gru is not None:
            states = self.gru(states)
        return states, weighted(states, self.attention(states))


class PairSide(nn.Module):
    """A stream's context for the alignment with one other stream: an attention and a projection of its own."""

    def __init__(self, config: CCAUConfig, net: StreamNet) -> None:
        super().__init__()
        width = config.embedding_dim
        own = config.attention == "pair" and net.num_cells > 1 and not net.plain
        self.attention = CellAttention(width, net.num_cells, config.temperature) if own else None
        self.projection = (
            nn.Sequential(nn.Linear(width, PROJECTION_DIM), nn.ReLU(), nn.Linear(PROJECTION_DIM, config.projection_dim))
            if config.projection_dim
            else nn.Identity()
        )

    def forward(self, states: Tensor, contexts: Tensor) -> Tensor:
        """Map states (B, N, HW, D) and the classifier's contexts (B, N, D) to what is aligned, (B, N, E)."""
        if self.attention is not None:
            contexts = weighted(states, self.attention(states))
        out: Tensor = self.projection(contexts)
        return out


class TaskClassifier(nn.Linear):
    """The last layer of every task; called, that of the first.

    Args:
        width: D.
        classes: K of each task by its name, the first first.
    """

    def __init__(self, width: int, classes: Mapping[str, int]) -> None:
        self.first, *others = classes
        super().__init__(width, classes[self.first])
        self.further = nn.ModuleDict({key_of(name): nn.Linear(width, classes[name]) for name in others})

    def of_task(self, name: str, hidden: Tensor) -> Tensor:
        """Return the logits (B, K) of a task from what comes before its last layer, (B, D)."""
        out: Tensor = self(hidden) if name == self.first else self.further[key_of(name)](hidden)
        return out


class TaskWeights(nn.Module):
    """s of each task, by which its loss L weighs exp(−s) L + s/2."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.empty(num_tasks))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every s to 0."""
        nn.init.zeros_(self.log_variance)


def key_of(name: str) -> str:
    """Return a name as a key of modules, which may hold no dot and be no attribute that they have."""
    return "of_" + name.replace(".", "_").replace("/", "-")
